"""What a container runs: MLflow's server for one model, in the place of the process that prepared it, so that signals reach it.

  python -m common.serving.container                     # serve MODEL_URI, or else the model in /model, on port 8080
  python -m common.serving.container MODEL_URI FOLDER    # write a model into a folder, for an image that holds it

Models of a store are compared with what was recorded when they were logged. Environment: MODEL_URI, WORKERS, PORT, TIMEOUT (in
seconds), and what MLflow and served models read.
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ..cli import Parser, guarded
from ..errors import UserError
from ..scratch import scratch

INSIDE = Path("/model")
"""Where an image holds its model."""


def verified(uri: str, folder: Path) -> Path:
    """A model of the store with its base inside, as it was logged. It knows its version, which the server's answers name."""
    from . import stored_code

    uri = stored_code.with_version(uri)
    stored = stored_code.verified(uri, folder)
    if match := re.fullmatch(r"models:/([^/]+)/(\d+)", uri):
        noted = {"model_name": match[1], "model_version": match[2]}
        (stored / "registered_model_meta").write_text(yaml.safe_dump(noted))
    return stored


def keep(uri: str, folder: Path) -> None:
    """Write a model of the store into a new folder, for an image that holds it."""
    if folder.exists():
        raise UserError(f"{folder} exists: remove it, or name another folder.")
    with scratch() as place:
        stored = verified(uri, place)
        # An image serves under a user of its own, and keeps the rights that its files had.
        for path in (stored, *stored.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(stored, folder)


def command(environment: Mapping[str, str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """(command line, environment) of MLflow's server for a model that lies in a folder."""
    from mlflow.pyfunc import scoring_server

    numbers = {
        name: _number(environment, name, default)
        for name, default in (("PORT", 8080), ("TIMEOUT", 60), ("WORKERS", 1))
    }
    line, added = scoring_server.get_cmd(
        str(folder), numbers["PORT"], "0.0.0.0", numbers["TIMEOUT"], numbers["WORKERS"]
    )
    return shlex.split(line), {**environment, **added}


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name) or str(default)
    if not given.isdecimal() or int(given) < 1:
        raise UserError(
            f"The environment variable {name} is {given!r}; it must be a whole number, 1 or more."
        )
    return int(given)


def serve(environment: Mapping[str, str], inside: Path = INSIDE) -> None:
    """Become the server of the model that the environment names, or of the one inside."""
    uri = environment.get("MODEL_URI")
    if uri:
        if not environment.get("MLFLOW_TRACKING_URI"):
            raise UserError(
                "MODEL_URI needs MLFLOW_TRACKING_URI, the address of the store that holds the model."
            )

        # It stays, since this process becomes the server; a new one for each start, since /tmp may outlive a container.
        folder = Path(tempfile.mkdtemp(prefix="served-model-", dir=environment.get("TMPDIR")))
        model = verified(uri, folder)
    elif (inside / "MLmodel").is_file():
        model = inside
    else:
        raise UserError(
            "This image holds no model: set MODEL_URI (models:/NAME@ALIAS) and MLFLOW_TRACKING_URI, or build an image with "
            "`make image MODEL=models:/NAME@ALIAS`."
        )
    line, added = command(environment, model)
    os.execvpe(line[0], line, added)


def main(arguments: Sequence[str] | None = None) -> None:
    from ..tracking import store

    parser = Parser(
        prog="python -m common.serving.container",
        description=__doc__,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL_URI", help="models:/NAME@ALIAS or runs:/ID/model")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a new folder")
    args = parser.parse_args(arguments)
    if args.model and not args.folder:
        parser.error("name the folder that the model is written into, too")
    if args.model or os.environ.get("MODEL_URI"):
        store.configure()
    if args.model:
        keep(args.model, args.folder)
    else:
        serve(os.environ)


if __name__ == "__main__":
    sys.exit(guarded(main))
