"""Checkpoints that are whole or recognised as damaged: written aside, sealed with checksums, put into place by one rename."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ..files import sha256, write_json

SEAL = "seal.json"
WRITING = ".checkpoint-being-written"

BEST = "best.safetensors"
"""In a checkpoint: the weights with the best validation score so far."""

HOOK = "hook.safetensors"
"""In a checkpoint: the state of the technique's hook."""

KEEP = 2
"""Checkpoints that are kept: if the last one is damaged, the one before it is used."""


def seal(folder: Path, notes: dict[str, Any]) -> None:
    """Record the checksum of every file of a checkpoint, and `notes` (JSON) beside them."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    write_json(folder / SEAL, {"files": files, "notes": notes})


def place(folder: Path, output_dir: Path, keep: int) -> None:
    """Move a sealed checkpoint ("checkpoint-<step>") into the output folder, and remove all but the `keep` latest."""
    target = output_dir / folder.name
    if target.exists():
        shutil.rmtree(target)
    os.replace(folder, target)
    # By their steps: a clock that was set back makes an old one look new.
    for old in _all(output_dir)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def newest(output_dir: Path) -> Path | None:
    """The latest checkpoint that is as it was sealed; stderr names each later one that is not."""
    for folder in reversed(_all(output_dir)):
        fault = _fault(folder)
        if fault is None:
            return folder
        print(f"{folder} is not used: {fault}; looking for the one before it.", file=sys.stderr)
    return None


def notes(checkpoint: Path) -> dict[str, Any]:
    """The notes that `seal` was given."""
    return json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["notes"]


def link(file: Path, target: Path) -> None:
    """A hard link to a file that is replaced but never changed; a copy on a disk without hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _all(output_dir: Path) -> list[Path]:
    """All checkpoints, the earliest first."""
    found = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and folder.is_dir():
            found.append((int(match[1]), folder))
    return [folder for _, folder in sorted(found)]


def _fault(folder: Path) -> str | None:
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files = dict(content["files"])
        for name, digest in files.items():
            if sha256(folder / name) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None
