"""The files of an exported folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..models import onnx as networks
from ..models.bundles import BundleInfo, completed, quietly
from ..tasks.table import task_of
from . import public_base
from .source import Stored, load, opening

FP32, INT8 = "model.onnx", "model_quantized.onnx"
"""optimum's names of networks."""


@dataclass(frozen=True)
class Written:
    """What was written. tokenizer: the folder's."""

    tokenizer: PreTrainedTokenizerBase
    hub_base: dict[str, Any] | None = None
    """An adapter's base on the hub, as `public_base.found` gives it; None: it lies in the folder, or there is none."""


def merged(stored: Stored, folder: Path) -> Written:
    """Write a plain model of transformers, whatever was trained in its weights."""
    model, tokenizer, info = load(stored, merge=True)
    quietly(model.save_pretrained, folder)
    _save_tokenizer(tokenizer, info, folder)
    return Written(tokenizer)


def adapter(stored: Stored, folder: Path) -> Written:
    """Write an adapter in PEFT's format, with its base in `base/` unless others find it on the hub."""
    base = stored.bundle / "base"
    public = public_base.found(stored)
    shutil.copytree(stored.bundle / "adapter", folder, dirs_exist_ok=True)
    file = folder / CONFIG_NAME
    config = json.loads(file.read_text())
    if public:
        config |= {"base_model_name_or_path": public["name"], "revision": public["revision"]}
    else:
        # With a dot, nobody takes the folder for a model of the hub that is called like it.
        config |= {"base_model_name_or_path": "./base", "revision": None}
        shutil.copytree(base, folder / "base")
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    with opening(stored.name):
        tokenizer = completed(AutoTokenizer.from_pretrained(base, trust_remote_code=False))
    _save_tokenizer(tokenizer, stored.info, folder)
    return Written(tokenizer, public)


def onnx(stored: Stored, folder: Path) -> Written:
    """Write a network for ONNX Runtime, in 32 bits and with weights of 8, under the names that optimum looks for."""
    model, tokenizer, info = load(stored, merge=True)
    files = networks.export(model, task_of(info.task).onnx_outputs, folder)
    files["fp32"].replace(folder / FP32)
    files["int8"].replace(folder / INT8)
    model.config.save_pretrained(folder)
    _save_tokenizer(tokenizer, info, folder)
    return Written(tokenizer)


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, info: BundleInfo, folder: Path) -> None:
    """Write it under the names that transformers 4 and 5 both know: optimum still needs 4."""
    for_others(tokenizer, info).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    if content.get("tokenizer_class") == "TokenizersBackend":
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
    # 4 takes a list under the old name only.
    if isinstance(content.get("extra_special_tokens"), list):
        content["additional_special_tokens"] = content.pop("extra_special_tokens")
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def for_others(tokenizer: PreTrainedTokenizerBase, info: BundleInfo) -> PreTrainedTokenizerBase:
    """The tokenizer itself, which from here on knows how long an input was in training, and on which side it is padded.

    Which inputs its model takes it knows since it was first loaded (`models/base.py`).
    """
    known = {
        "model_max_length": info.settings["max_length"],
        # A text behind which something is written must end where its row ends.
        "padding_side": "left" if info.head == "CausalLM" else "right",
    }
    for name, value in known.items():
        setattr(tokenizer, name, value)
    tokenizer.init_kwargs |= known
    return tokenizer


WRITERS = {"merged": merged, "adapter": adapter, "onnx": onnx}
"""Format → what writes its folder."""
