"""What training leaves of a model and what serving loads: saved models as folders, and the bases that they share.

A saved model is a folder, `bundle.json` beside `base/` (config, safetensors, tokenizer) and, for a technique that
leaves the base alone, `adapter/` in PEFT's format. Bases are shared: a bundle may leave `base/` out and name the
fingerprint of the one that it needs.
"""

import copy
import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PromptLearningConfig
from transformers import AutoConfig, AutoTokenizer

from .errors import UserError
from .families import family_of
from .models import Checkpoint, auto_class, completed, load_base, quietly
from .onnx_model import ONNX, OnnxModel
from .prompts import PromptModel

BUNDLE = "bundle.json"


@dataclass(frozen=True)
class BundleInfo:
    """What a saved model needs besides its weights; `bundle.json`."""

    technique: str
    model_type: str
    checkpoint: str
    base_fingerprint: str
    version: str
    """The data's. SQuAD's v1.1 always answers, v2.0 may say that there is no answer."""
    max_length: int
    doc_stride: int
    max_answer_length: int
    n_best: int
    null_threshold: float
    task: str = "extractive-qa"
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the logits."""
    runtime: str = "torch"
    """What computes the logits: torch, or ONNX Runtime (onnx-fp32, onnx-int8)."""


def fingerprint(folder: Path) -> str:
    """sha256 over the names and bytes of a saved base's files."""
    digest = hashlib.sha256()
    for file in sorted(p for p in Path(folder).iterdir() if p.is_file()):
        digest.update(f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def save_base(checkpoint: Checkpoint, folder: Path, task: str = "extractive-qa", **config) -> str:
    """Write the base that adapters trained on `checkpoint` need; returns its fingerprint.

    Its head is zero: every adapter brings its own, and a random one would make the same base a new one for each seed.
    """
    model, tokenizer = load_base(checkpoint, task, **config)
    with torch.no_grad():
        for name in family_of(model.config.model_type).heads[task]:
            for parameter in model.get_submodule(name).parameters():
                parameter.zero_()
    quietly(model.save_pretrained, folder)
    tokenizer.save_pretrained(folder)
    return fingerprint(folder)


def save_bundle(folder: Path, info: BundleInfo, model, tokenizer) -> None:
    """Write `bundle.json` and what the technique trained: `adapter/`, or `base/` where it trained all weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel | PromptModel):
        model.save_pretrained(str(folder / "adapter"))
        # PEFT writes a model card with nothing in it.
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    else:
        quietly(model.save_pretrained, folder / "base")
        tokenizer.save_pretrained(folder / "base")
    write_info(folder, info)


def write_info(folder: Path, info: BundleInfo) -> None:
    """Write `bundle.json`."""
    (folder / BUNDLE).write_text(json.dumps(asdict(info), indent=1) + "\n")


def read_bundle(folder: Path) -> BundleInfo:
    """`bundle.json` of a saved model."""
    content = json.loads((Path(folder) / BUNDLE).read_text())
    return BundleInfo(**content | {"labels": tuple(content["labels"])})


@dataclass(frozen=True)
class SharedBase:
    """A base in memory on which several adapters stand: each has modules of its own, all have the same weights."""

    model: torch.nn.Module
    tokenizer: object
    tokenizing: threading.Lock = field(default_factory=threading.Lock)
    """Held while the tokenizer is used: it keeps its truncation as state."""

    def copy(self, head: Sequence[str]) -> torch.nn.Module:
        """A model whose parameters and buffers are this one's, but for the modules of its head, which are written to."""
        own = {id(p) for name in head for p in self.model.get_submodule(name).parameters()}
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return copy.deepcopy(self.model, {id(t): t for t in tensors if id(t) not in own})


def load_shared_base(base: Path, info: BundleInfo) -> SharedBase:
    """The saved base that adapters like `info`'s need."""
    tokenizer = completed(AutoTokenizer.from_pretrained(base))
    auto = auto_class(info.task, family_of(info.model_type).kind)
    return SharedBase(quietly(auto.from_pretrained, base, dtype=torch.float32), tokenizer)


def load_bundle(
    folder: Path, base: Path | None = None, merge: bool = False, shared: SharedBase | None = None
):
    """(model in evaluation mode, tokenizer, BundleInfo) from a saved model, without the hub.

    base: where the base lies if the bundle does not hold it. merge: fold the adapter into the base's weights where
    the technique can (LoRA, LoHa, IA3): the same answers, faster. shared: a base in memory instead of one on disk; its
    weights are used as they are, and nothing is merged into them.
    """
    folder = Path(folder)
    info = read_bundle(folder)
    family = family_of(info.model_type)
    if shared is not None:
        model, tokenizer, merge = shared.copy(family.heads[info.task]), shared.tokenizer, False
    else:
        base = folder / "base" if (folder / "base").is_dir() else base
        if base is None:
            raise UserError(f"{folder} holds no base/, and none was given: the model cannot be loaded.")
        if info.runtime != "torch":
            tokenizer = completed(AutoTokenizer.from_pretrained(base))
            return OnnxModel(folder / ONNX, AutoConfig.from_pretrained(base)), tokenizer, info
        model, tokenizer = (loaded := load_shared_base(base, info)).model, loaded.tokenizer
    adapter = folder / "adapter"
    if adapter.is_dir():
        if isinstance(PeftConfig.from_pretrained(str(adapter)), PromptLearningConfig):
            model = PromptModel.from_pretrained(model, adapter, family, info.task)
        else:
            model = quietly(PeftModel.from_pretrained, model, str(adapter))
            model = model.merge_and_unload() if merge else model
    return model.requires_grad_(False).eval(), tokenizer, info
