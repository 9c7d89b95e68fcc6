"""Saved models of one base and technique become one: their trained tensors combined, LoRA's by PEFT's own functions.

A mean of LoRA's factors is not the mean of its updates: the product of two means has terms of B of one model with A of
another. `linear` takes means of the factors, which keeps the rank. The mean of the updates B A has up to the sum of all
ranks: `cat` is exact, `svd` is the nearest update of a chosen rank.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file

from ..errors import UserError
from .bundles import load_shared_base, quietly, read_bundle

How = Literal[
    "linear",
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
    "cat",
    "svd",
    "ties_svd",
    "dare_linear_svd",
    "dare_ties_svd",
    "magnitude_prune_svd",
]
"""PEFT's names: TIES (Yadav et al., 2023, https://arxiv.org/abs/2306.01708), DARE (Yu et al., 2023,
https://arxiv.org/abs/2311.03099). Those that end in "svd" combine whole updates, the others factors."""

HOWS: tuple[How, ...] = get_args(How)

_FACTOR = ".lora_"
_RANKS = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}


@dataclass(frozen=True)
class Recipe:
    """How models become one; refused by name where it makes no sense."""

    how: How = "linear"
    weights: tuple[float, ...] | None = None
    """One for each model; None: equal ones, whose result is a mean."""
    density: float | None = None
    """Share of the values that pruning keeps; None: half of them."""
    rank: int | None = None
    """Of the merged update, for the "svd" ones; None: the models' own."""
    seed: int = 0
    """Decides what DARE drops."""
    chosen: bool = True
    """Somebody has asked for this method; else models that have none but `linear` are merged by that."""

    def fitting(self, model: "Saved") -> "Recipe":
        """The recipe for models like this one."""
        return self if self.chosen or _has_factors(model.config) else replace(self, how="linear")

    @property
    def prunes(self) -> bool:
        """Whether a part of the values is dropped."""
        return self.how not in ("linear", "cat", "svd")

    def weights_of(self, count: int) -> tuple[float, ...]:
        """The weight of each of so many models. TIES takes means of its own, of the values with the elected sign."""
        return self.weights or ((1.0,) if "ties" in self.how else (1 / count,)) * count

    def check(self, count: int) -> None:
        """UserError names what does not fit so many models."""
        if self.weights is not None and len(self.weights) != count:
            raise UserError(f"--weights has {len(self.weights)} values for {count} runs: give one for each.")
        if sum(self.weights_of(count)) <= 0:
            raise UserError("--weights add up to 0 or less: their sum must be positive.")
        if self.density is not None and not self.prunes:
            raise UserError(f"--density is for methods that drop values, not for {self.how}: leave it out.")
        if self.rank is not None and not self.how.endswith("svd"):
            raise UserError(f"--rank is for the methods that end in svd, not for {self.how}: leave it out.")


def recipe(
    how: str | None = None,
    weights: Sequence[float] | None = None,
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
) -> Recipe:
    """A recipe from what people type; UserError names the existing methods if there is none of that name.

    how: by default `cat` where the technique has it, else `linear`: LoRA's factors of runs that started from different
    random values have no mean that makes sense.
    """
    found: How | None = "cat" if how is None else next((each for each in HOWS if each == how), None)
    if found is None:
        raise UserError(f"--method is {how!r}: choose one of {', '.join(HOWS)}.")
    return Recipe(found, tuple(weights) if weights else None, density, rank, seed, how is not None)


@dataclass(frozen=True)
class Saved:
    """What training left of a model. name: of its run, for messages."""

    name: str
    bundle: Path

    @property
    def config(self) -> dict[str, Any] | None:
        """Of its adapter; None where all weights were trained."""
        file = self.bundle / "adapter" / CONFIG_NAME
        return json.loads(file.read_text()) if file.is_file() else None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every trained tensor, by the name that it is saved under."""
        if self.config is not None:
            return load_file(self.bundle / "adapter" / SAFETENSORS_WEIGHTS_NAME)
        found: dict[str, torch.Tensor] = {}
        for file in sorted((self.bundle / "base").glob("*.safetensors")):
            found |= load_file(file)
        return found


def combine(models: Sequence[Saved], recipe: Recipe, folder: Path) -> None:
    """Write what training would leave of the merged model into a folder: `adapter/`, or `base/` with all weights.

    The bundles hold their base. UserError names the model that does not fit the first one, or what the technique lacks.
    """
    recipe.check(len(models))
    config = models[0].config
    factors = _has_factors(config)
    if recipe.how != "linear" and not factors:
        raise UserError(
            f"--method {recipe.how} is for the updates of LoRA, and {models[0].name} was trained by "
            f"{read_bundle(models[0].bundle).technique}: use --method linear."
        )
    tensors = [model.tensors() for model in models]
    _check_alike(models, tensors, by_rank=factors and (recipe.how == "cat" or recipe.how.endswith("svd")))
    weights = recipe.weights_of(len(models))
    if not factors and abs(sum(weights) - 1) > 1e-6:
        raise UserError(
            f"--weights add up to {sum(weights):g}: for techniques other than LoRA they must add up to 1."
        )
    merged = _mean(
        [{k: v for k, v in t.items() if not factors or _FACTOR not in k} for t in tensors], weights
    )
    if factors:
        config, updates = _by_peft(models, tensors, weights, recipe)
        merged |= updates
    # safetensors keeps the order of names in the file.
    merged = {name: merged[name].contiguous() for name in sorted(merged)}
    _write(models[0].bundle, config, merged, folder)


def trained_parameters(folder: Path) -> int:
    """How many values the adapter holds that was written into a folder; 0 where all weights are."""
    file = folder / "adapter" / SAFETENSORS_WEIGHTS_NAME
    return sum(t.numel() for t in load_file(file).values()) if file.is_file() else 0


def _has_factors(config: Mapping[str, Any] | None) -> bool:
    """Whether PEFT's functions can combine an adapter: a LoRA's. A DoRA has lengths too, which belong to its own update, and
    PEFT leaves out the biases that an update may have."""
    if config is None or config.get("peft_type") != "LORA":
        return False
    return not (config.get("use_dora") or config.get("lora_bias"))


def _mean(tensors: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weighted mean of tensors of the same names; whole numbers are the same in all."""
    total = sum(weights)
    found = {}
    for name, first in tensors[0].items():
        if len(tensors) == 1 or not first.is_floating_point():
            found[name] = first
            continue
        summed = torch.zeros(first.shape, dtype=torch.float64)
        for each, weight in zip(tensors, weights, strict=True):
            summed += each[name].double() * (weight / total)
        found[name] = summed.to(first.dtype)
    return found


def _by_peft(
    models: Sequence[Saved],
    tensors: Sequence[Mapping[str, torch.Tensor]],
    weights: Sequence[float],
    recipe: Recipe,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(config of the merged adapter, its factors by name), made by `LoraModel.add_weighted_adapter`."""
    # Heads and trained tokens are left out: PEFT refuses adapters that each have one, and `_mean` combines them.
    configs = [
        replace(
            _config_of(model),
            modules_to_save=None,
            trainable_token_indices=None,
            bias="none",
            init_lora_weights=True,
            inference_mode=True,
        )
        for model in models
    ]
    if recipe.rank is not None and recipe.rank > (most := sum(config.r for config in configs)):
        raise UserError(
            f"--rank {recipe.rank} is more than {most}, from which on the mean is exact: use --method cat."
        )
    base = load_shared_base(models[0].bundle / "base", read_bundle(models[0].bundle)).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        # Not plain numbers: PEFT would take the numbers of layers for names of adapters.
        names = [f"source_{i}" for i in range(len(models))]
        whole = quietly(PeftModel, base, configs[0], names[0])
        for name, config in zip(names[1:], configs[1:], strict=True):
            quietly(whole.add_adapter, name, config)
        for name, each in zip(names, tensors, strict=True):
            factors = {k: v for k, v in each.items() if _FACTOR in k}
            set_peft_model_state_dict(whole, factors, adapter_name=name)
        # PEFT multiplies A and B by the roots of the weights: three equal adapters at 1/3 would become three times the adapter.
        of_factors = recipe.how in ("linear", "dare_linear", "magnitude_prune")
        given = [weight * abs(weight) for weight in weights] if of_factors else list(weights)
        try:
            quietly(
                whole.base_model.add_weighted_adapter,
                names,
                given,
                "merged",
                combination_type=recipe.how,
                svd_rank=recipe.rank,
                density=0.5 if recipe.density is None else recipe.density,
                svd_full_matrices=False,
            )
        except ValueError as error:
            raise UserError(f"--method {recipe.how}: {' '.join(str(error).split())}") from None
    rank = whole.peft_config["merged"].r
    found = get_peft_model_state_dict(whole, adapter_name="merged")
    # The factors hold all scaling. PEFT leaves rsLoRA's on, which would scale them once more by the root of their rank.
    config = (models[0].config or {}) | {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
    }
    return config, {k: _of_rank(k, v.detach().cpu(), rank) for k, v in found.items() if _FACTOR in k}


def _of_rank(name: str, factor: torch.Tensor, rank: int) -> torch.Tensor:
    """A factor of an update with zeros up to a rank: a small layer has fewer singular vectors than may be asked for."""
    if ".lora_A." in name or name.endswith(".lora_embedding_A"):
        return torch.nn.functional.pad(factor, (0, 0, 0, rank - factor.shape[0]))
    return torch.nn.functional.pad(factor, (0, rank - factor.shape[1]))


def _config_of(model: Saved) -> LoraConfig:
    return PeftConfig.from_pretrained(str(model.bundle / "adapter"))


def _check_alike(
    models: Sequence[Saved], tensors: Sequence[Mapping[str, torch.Tensor]], by_rank: bool
) -> None:
    """UserError names the model whose technique has other settings than the first one's. by_rank: ranks may differ."""
    first, own = models[0], tensors[0]
    for model, others in zip(models[1:], tensors[1:], strict=True):
        config, other = _deciding(first.config, by_rank), _deciding(model.config, by_rank)
        for field in sorted(config.keys() | other.keys()):
            if config.get(field) != other.get(field):
                raise UserError(
                    f"Run {model.name} was trained with {field} {str(other.get(field))[:60]}, run {first.name} with "
                    f"{str(config.get(field))[:60]}: "
                    f"merge runs with the same{', or use --method cat or svd' * (field in _RANKS and _has_factors(first.config))}."
                )
        for name in sorted(own.keys() | others.keys()):
            if name in own and name in others and not _fits(own[name], others[name]):
                raise UserError(
                    f"Run {model.name} does not fit run {first.name}: its {name} has other values, and whole numbers have no mean."
                )
            shapes = [tuple(t[name].shape) if name in t else "missing" for t in (others, own)]
            if shapes[0] != shapes[1] and not (by_rank and _FACTOR in name and "missing" not in shapes):
                raise UserError(
                    f"Run {model.name} does not fit run {first.name}: its {name} is {shapes[0]}, not {shapes[1]}."
                )


def _fits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have a mean: whole numbers say what the values beside them belong to."""
    return one.is_floating_point() or one.equal(other)


def _deciding(config: Mapping[str, Any] | None, by_rank: bool) -> dict[str, Any]:
    """The fields of an adapter's config that decide what its tensors mean."""
    return {
        name: sorted(value) if isinstance(value, list) else value
        for name, value in (config or {}).items()
        if "dropout" not in name
        and not name.startswith(
            ("init_", "base_model_name", "auto_mapping", "inference_mode", "peft_version")
        )
        and not (by_rank and name in _RANKS)
    }


def _write(
    like: Path, config: Mapping[str, Any] | None, tensors: dict[str, torch.Tensor], folder: Path
) -> None:
    """Write tensors as a saved model has them, with everything else as the given one has it."""
    if config is None:
        weights = sorted((like / "base").glob("*.safetensors"))
        shutil.copytree(like / "base", folder / "base")
        for file in weights:
            held = load_file(file).keys()
            save_file(
                {k: tensors[k] for k in tensors if k in held}, folder / "base" / file.name, {"format": "pt"}
            )
        return
    shutil.copytree(like / "adapter", folder / "adapter")
    save_file(tensors, folder / "adapter" / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
    (folder / "adapter" / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
