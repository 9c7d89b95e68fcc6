"""The files of a checkpoint's folder: whole, and without code of their own."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from tokenizers import Tokenizer

from ..errors import UserError, first_line
from ..files import once


def check_files(name: str, folder: Path) -> None:
    """UserError names a file of a local checkpoint that is cut off or damaged, or that names code to be run.

    name: the checkpoint as the user wrote it. Each file is read once per process, unless it changes.
    """
    for file in sorted(folder.iterdir()):
        try:
            auto_map = once(_auto_map, file)
        # `tokenizers` raises a plain Exception for a file that is no tokenizer.
        except Exception as error:
            raise UserError(
                f"--model_checkpoint {name}: {file.name} is damaged ({first_line(error)}); copy the checkpoint again."
            ) from None
        refuse_code(name, file.name, auto_map)


def _auto_map(file: Path) -> Any:
    """The `auto_map` of a JSON file, which names code to run; falsy without one. Reading a damaged file may raise anything."""
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        if file.name == "tokenizer.json":
            Tokenizer.from_file(str(file))
        return isinstance(content, dict) and content.get("auto_map")
    if file.suffix == ".safetensors":
        with safe_open(file, "pt"):
            pass
    return None


ADOPTED = {"configuration_eurobert", "modeling_eurobert"}
"""Modules that checkpoints of the hub name, and that transformers ships as they are: it uses its own, for the same weights."""


def _adopted(auto_map: Any) -> bool:
    named = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    # OWNER/NAME--MODULE.CLASS
    return all(
        isinstance(each, str) and each.rpartition("--")[2].partition(".")[0] in ADOPTED for each in named
    )


def refuse_code(name: str, file: str, auto_map: Any) -> None:
    """UserError where a file names code to run.

    transformers would ignore that code where it has its own class for the type, but the weights are made for the code;
    except for ADOPTED.
    """
    if auto_map and not _adopted(auto_map):
        raise UserError(
            f"--model_checkpoint {name}: {file} names code of its own to run (auto_map), which is never run; use a "
            "checkpoint that transformers loads by itself."
        )
