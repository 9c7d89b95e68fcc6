"""What a result depends on beside its settings and data: code, libraries, machine."""

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
from email import message_from_string
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from ..paths import ROOT

PACKAGES = ("torch", "transformers", "peft", "datasets", "accelerate", "mlflow", "numpy")

WHERE_WRITTEN = {"--json", "--output", "--output_dir"}
"""Flags that decide no figure, each with one value."""

FILE = "provenance.json"
"""The artifact of a run that holds what `details` gives."""


def tags() -> dict[str, str]:
    """What runs are filtered by, as tags of a run: the commit and the device."""
    import torch

    commit = _git("rev-parse", "HEAD")
    return {
        "git_commit": commit or "unknown",
        "git_dirty": str(bool(_git("status", "--porcelain"))).lower() if commit else "unknown",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def details() -> dict[str, str]:
    """The libraries' versions and the machine."""
    import torch

    return {
        **{f"version.{name}": found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cpu_count": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
    }


def of_command() -> dict[str, str]:
    """How figures came about that this process measured: its command line, the machine, the libraries, the commit (with
    "-dirty" where files differ from it) and the day. Keys are those of `reports.result_tables`."""
    script, *given = sys.argv
    path = Path(script).resolve()
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    flags = [word.partition("=")[0] for word in given]
    kept = [
        word
        for i, word in enumerate(given)
        if flags[i] not in WHERE_WRITTEN and given[i - 1 : i] not in ([flag] for flag in WHERE_WRITTEN)
    ]
    versions = {package: found for package in PACKAGES if (found := _version(package))}
    return {
        "command": shlex.join(["python", name, *kept]),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "versions": ", ".join(
            f"{package} {found}"
            for package, found in {"Python": platform.python_version(), **versions}.items()
        ),
        "commit": _git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty") or "unknown",
        "date": datetime.date.today().isoformat(),
    }


def environment() -> str:
    """All installed packages, a line each, as pip would pin them."""
    # Each look at `distribution.metadata` reads the whole file again, with the package's README.
    files = (found.read_text("METADATA") or found.read_text("PKG-INFO") or "" for found in distributions())
    each = (message_from_string(file.partition("\n\n")[0]) for file in files)
    found = {about["Name"]: about["Version"] for about in each if about["Name"]}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))


def _git(*command: str) -> str:
    try:
        done = subprocess.run(
            ["git", *command], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = None
    return names[1] if names else platform.processor() or platform.machine()
