"""What serving loads: saved models as folders, and the bases that they share.

A saved model is a folder, `bundle.json` beside `base/` (config, safetensors, tokenizer) and, for a technique that
leaves the base alone, `adapter/` in PEFT's format. Bases are shared: a bundle may leave `base/` out and name the
fingerprint of the one that it needs.
"""

import copy
import hashlib
import importlib
import json
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import torch
import transformers
from peft import PeftModel
from peft.utils import CONFIG_NAME
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ..errors import UserError
from . import global_attention
from .families import auto_class, family_of, saved_head

P = ParamSpec("P")
T = TypeVar("T")

BUNDLE = "bundle.json"

CORRECTED = frozenset({"BOFT", "LILY", "LN_TUNING"})
"""PEFT's types that PEFT itself opens or merges wrongly (peft_corrections.py)."""

REFERENCE = "base.json"
"""Names the base that an adapter needs, where the base is not inside."""


@dataclass(frozen=True)
class BundleInfo:
    """What a saved model needs besides its weights; `bundle.json`."""

    technique: str
    model_type: str
    checkpoint: str
    base_fingerprint: str
    task: str
    """The task that it was trained for; decides which module serves it."""
    head: str
    """The end of its transformers class, behind "For"; "" in files of earlier versions, until a base is loaded."""
    settings: Mapping[str, Any]
    """Further settings of answering, such as `max_length`; the task decides which."""
    runtime: str = "torch"
    """What computes the logits: torch, or ONNX Runtime (onnx-fp32, onnx-int8)."""

    @property
    def has_unanswerable(self) -> bool:
        """Whether the data has questions without an answer, so that a model may give none."""
        return self.settings.get("version") == "v2.0"


def read_reference(bundle: Path) -> dict[str, str] | None:
    """`uri` and `fingerprint` of the base that a saved model refers to; None where it holds its own."""
    file = Path(bundle) / REFERENCE
    return json.loads(file.read_text()) if file.is_file() else None


def _sha256(file: Path) -> str:
    """As in `files`, which stored models do not carry; weights need not fit into memory for it."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """Path within a folder → sha256, of every file in it."""
    return {
        file.relative_to(folder).as_posix(): _sha256(file)
        for file in sorted(Path(folder).rglob("*"))
        if file.is_file()
    }


def difference(held: Mapping[str, str], recorded: Mapping[str, str]) -> str:
    """The first file that is not as recorded, and how it differs; empty where all are as recorded."""
    for name in sorted(held.keys() | recorded.keys()):
        if name not in held:
            return f"{name} is missing"
        if name not in recorded:
            return f"{name} was added"
        if held[name] != recorded[name]:
            return f"{name} was changed"
    return ""


def check_files(bundle: Path, recorded: Mapping[str, str]) -> None:
    """UserError names a file of a saved model that is not as recorded when it was logged (path → sha256).

    Where a base lies inside instead of the reference to it, it must be the one that `bundle.json` names.
    """
    held = hashes(bundle)
    if REFERENCE in recorded and REFERENCE not in held:
        base = bundle / "base"
        held = {name: value for name, value in held.items() if not name.startswith("base/")}
        if base.is_dir():
            held[REFERENCE] = recorded[REFERENCE]
    if found := difference(held, recorded):
        raise UserError(f"{bundle} is not loaded: its file {found} since this model was logged.")
    if REFERENCE in recorded and (bundle / "base").is_dir():
        check_base(bundle / "base", read_bundle(bundle).base_fingerprint)


def check_base(base: Path, wanted: str) -> None:
    """UserError where a base is not the one with this fingerprint."""
    if fingerprint(base) != wanted:
        raise UserError(f"{base} is not loaded: it is not the base that this model was trained on.")


def fingerprint(folder: Path) -> str:
    """sha256 over the names and bytes of a saved base's files."""
    digest = hashlib.sha256()
    for file in sorted(p for p in Path(folder).iterdir() if p.is_file()):
        digest.update(f"{file.name}:{_sha256(file)}\n".encode())
    return digest.hexdigest()


def write_info(folder: Path, info: BundleInfo) -> None:
    """Write `bundle.json`."""
    (folder / BUNDLE).write_text(json.dumps(asdict(info), indent=1) + "\n")


def read_bundle(folder: Path) -> BundleInfo:
    """`bundle.json` of a saved model."""
    return BundleInfo(**upgraded(json.loads((Path(folder) / BUNDLE).read_text())))


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """What `bundle.json` holds, as BundleInfo has it: earlier versions wrote every task's settings flat, and no head."""
    if "settings" in content:
        return dict(content)
    own = {field.name for field in fields(BundleInfo)}
    settings = {name: value for name, value in content.items() if name not in own}
    return {name: value for name, value in content.items() if name in own} | {
        "head": "",
        "settings": settings,
    }


def opener(bundle: Path) -> str | None:
    """The module of this package that opens a saved model; None where PEFT and transformers do.

    It is imported by name, so that only stored models that need it carry it.
    """
    if read_bundle(bundle).runtime != "torch":
        return "onnx"
    config = Path(bundle) / "adapter" / CONFIG_NAME
    if not config.is_file():
        return None
    content = json.loads(config.read_text())
    if "method" in content:
        return "methods"
    if content["peft_type"] in CORRECTED:
        return "peft_corrections"
    # Earlier versions of the suite wrote PEFT's own type.
    virtual = "prompt_type" in content or content["peft_type"] in ("PREFIX_TUNING", "P_TUNING")
    return "virtual_tokens" if virtual else None


def _trained_biases(bundle: Path) -> bool:
    """Whether an adapter in PEFT's format brings biases of the base, which PEFT writes into it."""
    config = bundle / "adapter" / CONFIG_NAME
    return config.is_file() and json.loads(config.read_text()).get("bias", "none") != "none"


def merges(bundle: Path) -> bool:
    """Whether a saved model, loaded with `merge`, is a plain model of its class, which transformers saves and loads."""
    opens, adapter = opener(bundle), Path(bundle) / "adapter"
    if opens == "methods":
        return _module(opens).read(adapter).merges
    if opens == "peft_corrections":
        return _module(opens).merges(adapter)
    return opens is None


def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)


@dataclass(frozen=True)
class SharedBase:
    """A base in memory that several adapters share: each has its own modules, all have the same weights."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    head: str
    tokenizing: threading.Lock = field(default_factory=threading.Lock)
    """Held while the tokenizer is used: it keeps its truncation as state."""

    def copy(self, own_biases: bool = False) -> torch.nn.Module:
        """A model that shares this one's parameters and buffers, except for those that an adapter overwrites: the head's, and
        on demand all biases."""
        head = family_of(self.model.config.model_type).heads[self.head]
        own = {id(p) for name in head for p in self.model.get_submodule(name).parameters()}
        if own_biases:
            own |= {id(p) for name, p in self.model.named_parameters() if name.endswith(".bias")}
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return copy.deepcopy(self.model, {id(t): t for t in tensors if id(t) not in own})


def load_shared_base(base: Path, info: BundleInfo) -> SharedBase:
    """The saved base that adapters like `info`'s need."""
    tokenizer = completed(AutoTokenizer.from_pretrained(base, trust_remote_code=False))
    head = info.head or saved_head(AutoConfig.from_pretrained(base, trust_remote_code=False))
    model = quietly(auto_class(head).from_pretrained, base, dtype=torch.float32, trust_remote_code=False)
    return SharedBase(global_attention.put_on(writing_greedily(model), head), tokenizer, head)


def load_bundle(
    folder: Path, base: Path | None = None, merge: bool = False, shared: SharedBase | None = None
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase, BundleInfo]:
    """(model in evaluation mode, tokenizer, BundleInfo) from a saved model, without the hub.

    base: where the base lies if the bundle does not hold it. merge: fold the adapter into the base's weights where
    the technique can (LoRA, LoHa, IA3), which gives the same answers faster. shared: a base in memory instead of one on
    disk; its weights stay as they are, and nothing is merged into them.
    """
    folder = Path(folder)
    info = read_bundle(folder)
    if shared is not None:
        model, merge = shared.copy(own_biases=_trained_biases(folder)), False
    else:
        base = folder / "base" if (folder / "base").is_dir() else base
        if base is None:
            raise UserError(f"{folder} holds no base/, and none was given: the model cannot be loaded.")
        if info.runtime != "torch":
            tokenizer = completed(AutoTokenizer.from_pretrained(base, trust_remote_code=False))
            return _module("onnx").opened(folder, base), tokenizer, info
        shared = load_shared_base(base, info)
        model = shared.model
    adapter = folder / "adapter"
    if adapter.is_dir():
        if (opens := opener(folder)) is not None:
            model = _module(opens).opened(model, adapter, family_of(info.model_type), shared.head)
            if merge and opens == "peft_corrections" and merges(folder):
                model = _module(opens).merged(model)
        else:
            model = quietly(PeftModel.from_pretrained, model, str(adapter))
            model = model.merge_and_unload() if merge else model
    return model.requires_grad_(False).eval(), shared.tokenizer, replace(info, head=shared.head)


def completed(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with what GPT-2's lacks: a padding token, and special tokens around a question and its context.

    The end-of-text token serves as padding. Masks and labels are made from lengths, so that they never confuse the two.
    A text that is too long keeps its beginning, whatever a checkpoint's settings say.
    """
    tokenizer.truncation_side = "right"
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if (
        tokenizer.num_special_tokens_to_add(pair=True) == 0
        and tokenizer.eos_token is not None
        and tokenizer.is_fast
    ):
        end = tokenizer.eos_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A", pair=f"{end} $A {end} $B:1", special_tokens=[(end, tokenizer.eos_token_id)]
        )
    return tokenizer


def writing_greedily(model: torch.nn.Module) -> torch.nn.Module:
    """The model itself, without the rules of writing that a checkpoint brings along: beams, penalties for repeated words, words
    that must come first or last. Answers are the most probable words, and their scores the words' probabilities.
    """
    rules = getattr(model, "generation_config", None)
    if rules is not None:
        kept = {name: getattr(rules, name, None) for name in _IDS_OF_WRITING}
        plain = GenerationConfig(**kept)
        if rules.to_diff_dict().keys() - plain.to_diff_dict().keys() - _ABOUT_THE_FILE:
            model.generation_config = plain
    return model


_IDS_OF_WRITING = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_ABOUT_THE_FILE = {"_from_model_config", "transformers_version"}


def quietly(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Load or save without progress bars, the report that the new head's weights are new, and warnings that no user can act
    on: that PEFT uses names that transformers will drop, takes AdaLoRA's ranks for LoRA's, and would save memory in EVA."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "The following rank_pattern keys did not match", RuntimeWarning)
            warnings.filterwarnings("ignore", "lora with eva initialization used with", UserWarning)
            return call(*args, **kwargs)
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
