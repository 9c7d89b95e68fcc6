"""Which techniques leave this project in which format, who opens the folder, and why the others are refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.utils import CONFIG_NAME

from ..errors import UserError
from ..models import onnx as networks
from ..models.bundles import BundleInfo, merges
from ..models.methods import FIELD, BottleneckAdapters, Method, PartOfWeights
from ..models.peft_kinds import CANNOT_MERGE, PROMPT_TYPES
from ..models.virtual_tokens import OWN_TYPE
from ..tasks.interface import Task
from ..tasks.table import task_of

FORMATS: dict[str, str] = {
    "merged": "transformers",
    "adapter": "PEFT, on the base",
    "onnx": "ONNX Runtime, optimum",
}
"""Format → what opens its folder."""

ALL_WEIGHTS = "all weights"
"""The kind of a technique that has neither a method nor a type of PEFT."""

BEGIN, END = "<!-- formats, by scripts/matrix.py -->", "<!-- end of formats -->"
"""The lines of docs/EXPORT.md before and after the table."""

_SEVERAL = "BOFT of several factors"
"""The kind of a BOFT that multiplies several rotations."""

_NO_SUCH = "PEFT has no such technique"
_DEPENDS = "its update depends on the input, so that no weight can hold it"


def kind_of(method: PeftConfig | Method | None) -> str:
    """The kind of a technique: that of its method, or PEFT's type."""
    if method is None:
        return ALL_WEIGHTS
    if isinstance(method, Method):
        return method.kind
    return _kind(method.to_dict() | {"peft_type": getattr(method.peft_type, "value", method.peft_type)})


def kind_of_saved(bundle: Path) -> str:
    """The kind of the technique of a saved model."""
    file = bundle / "adapter" / CONFIG_NAME
    if not file.is_file():
        return ALL_WEIGHTS
    content = json.loads(file.read_text())
    return str(content.get(FIELD) or content.get(OWN_TYPE) or _kind(content))


def _kind(config: Mapping[str, Any]) -> str:
    several = config["peft_type"] == "BOFT" and config["boft_n_butterfly_factor"] > 1
    return _SEVERAL if several else str(config["peft_type"])


def refusal(format: str, kind: str, task: Task) -> str | None:
    """Why a model of a kind is not exported in a format; None if it is."""
    if format == "onnx":
        return None if task.onnx_outputs else "its answers are written token by token"
    reasons: dict[str, Mapping[str, str]] = {
        "merged": {
            BottleneckAdapters.kind: "no class of transformers has its added layers",
            **dict.fromkeys(
                PROMPT_TYPES, "its virtual tokens stand beside the weights, which cannot hold them"
            ),
            **dict.fromkeys(CANNOT_MERGE, _DEPENDS),
        },
        "adapter": {
            ALL_WEIGHTS: "all weights were trained, and there is no adapter",
            PartOfWeights.kind: _NO_SUCH,
            BottleneckAdapters.kind: _NO_SUCH,
            _SEVERAL: "PEFT opens several factors only where it can compile an extension for CUDA",
            **dict.fromkeys(
                PROMPT_TYPES,
                "PEFT's own forward pass gives other logits: it moves positions and leaves segment ids out",
            ),
        },
    }
    return reasons[format].get(kind)


def refusal_of_saved(format: str, bundle: Path, info: BundleInfo) -> str | None:
    """Why a saved model is not exported in a format; None if it is."""
    reason = refusal(format, kind_of_saved(bundle), task_of(info.task))
    if format == "merged":
        return None if merges(bundle) else reason or "what was trained cannot be merged into the weights"
    if format == "onnx":
        return reason or networks.refusal(info.model_type)
    return reason


def check(format: str, bundle: Path, info: BundleInfo) -> None:
    """UserError, with the reason and the alternative, where a saved model cannot be exported in a format, or where the packages
    for it are missing."""
    if reason := refusal_of_saved(format, bundle, info):
        others = [f"--format {other}" for other in FORMATS if not refusal_of_saved(other, bundle, info)]
        instead = " or ".join([*others, "serve it with `mlflow models serve`"])
        what = info.model_type if reason == networks.refusal(info.model_type) else info.technique
        raise UserError(f"--format {format}: {what} cannot be exported like this: {reason}. Use {instead}.")
    if format == "onnx":
        networks.needed("onnx", "onnxscript")


def markdown(kinds: Mapping[str, str], task: Task) -> str:
    """A table of techniques and formats, and the reasons of refusals. kinds: name of a technique → its kind."""
    reasons: dict[str, str] = {}

    def cell(format: str, kind: str) -> str:
        reason = refusal(format, kind, task)
        return reasons.setdefault(reason, f"no [{len(reasons) + 1}]") if reason else "yes"

    rows = [["technique", *(f"`{format}`" for format in FORMATS)], ["---"] * (1 + len(FORMATS))]
    rows += [[name, *(cell(format, kind) for format in FORMATS)] for name, kind in kinds.items()]
    rows.append(["opened by", *FORMATS.values()])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = "".join(f"\n- {mark.removeprefix('no ')} {reason}" for reason, mark in reasons.items())
    return f"{table}\n\nWhat is refused, before anything is written, and why:\n{notes}\n"
