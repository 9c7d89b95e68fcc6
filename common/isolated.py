"""A program of this project that runs where the project is not: what a stored or exported model gives there, anybody gets."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from .errors import last_line
from .scratch import scratch


class NoAnswer(Exception):
    """The program failed or took too long; the message is the last line of its output, or says so."""


def answer(
    program: str,
    request: Any,
    *arguments: str,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    hub_cache: bool = False,
) -> bytes:
    """The file that a program writes in a fresh process. Raises NoAnswer.

    program: a file, which is called with the arguments, the file of the request as JSON, and the file for its answer.
    timeout: in seconds. environment: variables beside this process's. hub_cache: whether it has the models that were fetched
    from the hub before; it never asks the hub.

    The process cannot import this package, and it uses one thread unless OMP_NUM_THREADS is set.
    """
    with scratch() as folder:
        sent, given = folder / "asked.json", folder / "given"
        sent.write_text(json.dumps(request), encoding="utf-8")
        settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | os.environ
        settings |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if not hub_cache:
            names = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
            settings |= dict.fromkeys(names, str(folder / "hub"))
        # Files that are downloaded from a server are removed with the folder.
        settings |= {"TMPDIR": str(folder), **(environment or {})}
        # Isolated: neither the program's folder, nor the working directory, nor PYTHONPATH leads to this package.
        command = [sys.executable, "-I", program, *arguments, str(sent), str(given)]
        try:
            done = subprocess.run(
                command, cwd=folder, env=settings, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"no answer within {timeout:g} s") from None
        if done.returncode != 0 or not given.is_file():
            raise NoAnswer(last_line(done.stderr, f"exit status {done.returncode}")[:300])
        return given.read_bytes()
