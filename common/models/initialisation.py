"""Where LoRA starts: from parts of the base's own weights (PiSSA, OLoRA), or from directions of the data (EVA).

PEFT takes the parts that PiSSA and OLoRA start from out of the base. Adapters of this suite share one untouched base, so such
an adapter is saved as a plain LoRA of twice the rank, which subtracts where it started:
W + s (B A - B0 A0) = W + s [B, -B0] [A; A0].
"""

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import UserError
from . import adalora
from .adalora import ADAPTER
from .families import FAMILIES
from .methods import Method

Batch = dict[str, torch.Tensor]
Loss = Callable[[Any, Batch, torch.Tensor], torch.Tensor]

START = "lora_start"
"""Attribute of a PEFT model: layer → the A and B that it started from, where these were taken out of the base."""
WINDOWS = 64
"""Windows whose activations EVA looks at: some 10,000 tokens, for at most a few thousand dimensions of which it takes a few."""


def started(model: PeftModel) -> None:
    """Note where a new LoRA starts, if that was taken out of the base. UserError where the layers are too small for the rank."""
    config = _lora(model)
    if config is None or not _takes_from_base(config):
        return
    start = {}
    for name, layer in layers(model).items():
        a, b = (part[ADAPTER].weight.detach().clone() for part in (layer.lora_A, layer.lora_B))
        if len(a) < layer.r[ADAPTER]:
            raise UserError(
                f"--init {config.init_lora_weights} takes the rank out of the base's weights, and {name} has rank "
                f"{len(a)}: use --r {len(a)} or less."
            )
        start[name] = a, b
    setattr(model, START, start)


def of_shapes(method: PeftConfig | Method) -> PeftConfig | Method:
    """A copy of a method that starts from the shapes of a model alone, for one that has no weights yet."""
    made = copy.deepcopy(method)
    if isinstance(made, LoraConfig) and _takes_from_base(made):
        made.init_lora_weights = True
    return made


def save(model: PeftModel, folder: Path) -> None:
    """Write an adapter in PEFT's format, for the base as it was before the adapter came."""
    adalora.set_ranks(model)
    model.save_pretrained(str(folder))
    start: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = getattr(model, START, None)
    if start is None:
        return
    # PEFT's own conversion (`path_initial_model_for_weight_conversion`) leaves out the head and DoRA's magnitudes.
    weights, tensors = folder / SAFETENSORS_WEIGHTS_NAME, {}
    for name, tensor in load_file(weights).items():
        layer, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        if layer in start and part in ("A.weight", "B.weight"):
            a, b = (kept.to(tensor.device) for kept in start[layer])
            tensor = torch.cat([tensor, a]) if part == "A.weight" else torch.cat([tensor, -b], dim=1)
        tensors[name] = tensor.contiguous()
    save_file(tensors, weights, metadata={"format": "pt"})
    file = folder / CONFIG_NAME
    config = json.loads(file.read_text())
    ranks = {name: 2 * layer.r[ADAPTER] for name, layer in layers(model).items()}
    # The factor alpha / r stays as it was, whatever made it.
    alphas = {name: layer.scaling[ADAPTER] * ranks[name] for name, layer in layers(model).items()}
    r, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    config |= {
        "init_lora_weights": True,
        "use_rslora": False,
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != r},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }
    file.write_text(json.dumps(config, indent=2, sort_keys=True))


def needs_data(model: nn.Module) -> bool:
    """Whether a model's adapter still has to be initialised from training data."""
    config = _lora(model)
    return config is not None and config.init_lora_weights == "eva"


@torch.no_grad()
def from_data(model: PeftModel, loss: Loss, batches: Iterable[Batch]) -> None:
    """Start a LoRA from the directions in which the inputs of its layers vary most (EVA; Paischer et al., 2024,
    https://arxiv.org/abs/2410.07170), and give more rank to layers where these explain more.

    loss: makes the model compute a batch. Unlike PEFT's `get_eva_state_dict`, this looks at a fixed number of batches, leaves
    out padding also where a decoder has its own, and needs no labels of the form of a language model's.
    """
    config = _lora(model)
    assert config is not None and config.eva_config is not None
    found = _components(_covariances(model, loss, batches), model, config.eva_config.rho)
    ranks = _shared_out({name: values for name, (values, _) in found.items()}, model)
    state = {f"base_model.model.{name}": vectors[: ranks[name]] for name, (_, vectors) in found.items()}
    initialize_lora_eva_weights(model, eva_state_dict=state, show_progress_bar=False)
    # It is a plain LoRA from here on.
    model.peft_config[ADAPTER].init_lora_weights, model.peft_config[ADAPTER].eva_config = True, None


def layers(model: PeftModel) -> dict[str, LoraLayer]:
    """Name in the base → the layer with LoRA."""
    return {
        name: layer for name, layer in model.base_model.model.named_modules() if isinstance(layer, LoraLayer)
    }


def _lora(model: nn.Module) -> LoraConfig | None:
    config = model.peft_config[ADAPTER] if isinstance(model, PeftModel) else None
    return config if isinstance(config, LoraConfig) else None


def _takes_from_base(config: LoraConfig) -> bool:
    return str(config.init_lora_weights).startswith(("pissa", "olora"))


def _covariances(model: PeftModel, loss: Loss, batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
    """Layer → the covariance of its inputs (width, width) over all tokens; layers with the same input share a tensor."""
    sums: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}
    twin: dict[str, str] = {}
    batch: Batch = {}
    family = FAMILIES.get(model.config.model_type)
    turned = (
        (family.query, family.key, family.value, *family.further) if family and family.length_first else ()
    )
    # The tensor that the layer before had as input, and that layer: query, key and value follow each other.
    last: tuple[torch.Tensor | None, str] = None, ""

    def look(name: str, x: torch.Tensor) -> None:
        nonlocal last
        if x is last[0]:
            twin[name] = last[1]
            return
        last = x, name
        rows = _without_padding(x.transpose(0, 1) if name.endswith(turned) else x, batch).float()
        total, products, n = sums.get(name, (0.0, 0.0, 0))
        sums[name] = total + rows.sum(0), products + rows.T @ rows, n + len(rows)

    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0]))
        for name, layer in layers(model).items()
    ]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            loss(model, {k: v for k, v in batch.items() if k != "labels"}, batch["labels"])
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    found = {}
    for name, (total, products, n) in sums.items():
        mean = total / n
        found[name] = products / n - torch.outer(mean, mean)
    return {name: found[twin.get(name, name)] for name in layers(model)}


def _without_padding(x: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The rows (tokens, width) of a layer's input that belong to tokens."""
    mask, labels = batch.get("attention_mask"), batch["labels"]
    if mask is not None and x.shape[:-1] == mask.shape:
        return x[mask.bool()]
    if x.shape[:-1] == labels.shape:
        # A decoder reads the answer.
        return x[labels != -100]
    if mask is not None and x.ndim == 3 and len(x) == len(mask) and x.shape[1] > mask.shape[1]:
        # Longformer pads windows on to a multiple of its own.
        return x[:, : mask.shape[1]][mask.bool()]
    # It also fills up the shorter questions of a batch, with zeros.
    rows = x.flatten(0, -2)
    return rows[rows.any(-1)]


def _components(
    covariances: dict[str, torch.Tensor], model: PeftModel, rho: float
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer → (shares of the variance, largest first; their directions (number, width)), at most rho times its rank."""
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    found = {}
    for name, layer in layers(model).items():
        covariance = covariances[name]
        most = min(round(layer.r[ADAPTER] * rho), len(covariance))
        if id(covariance) not in made:
            # `svd_lowrank` draws its start: always the same, and without an effect on what is drawn later.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _, values, vectors = torch.svd_lowrank(covariance, q=min(2 * most, len(covariance)), niter=8)
            made[id(covariance)] = values / covariance.trace(), vectors.T
        values, vectors = made[id(covariance)]
        found[name] = values[:most], vectors[:most]
    return found


def _shared_out(shares: dict[str, torch.Tensor], model: PeftModel) -> dict[str, int]:
    """Layer → its rank, of as much rank as all layers had together: where a direction explains the most."""
    budget = sum(layer.r[ADAPTER] for layer in layers(model).values())
    owners = [name for name, values in shares.items() for _ in values]
    order = torch.cat(list(shares.values())).argsort(descending=True, stable=True)[:budget]
    ranks = dict.fromkeys(shares, 0)
    for place in order.tolist():
        ranks[owners[place]] += 1
    return ranks
