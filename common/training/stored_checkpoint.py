"""A model of the store as a checkpoint to start from: verified, its adapter merged into its base, with its trained head."""

import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

from filelock import FileLock

from ..atomic import atomic_write
from ..errors import UserError, first_line
from ..models import saving
from ..models.base import Checkpoint
from ..models.bundles import BUNDLE, load_bundle, merges, read_bundle
from ..paths import ROOT
from ..scratch import scratch
from ..serving import stored_code, stored_models
from ..tracking import store

FOLDER = "starting-points"
"""Beside the store's artifacts: a folder for each model that was started from, as transformers saves it."""


def is_stored(name: str) -> bool:
    """Whether a checkpoint's name is a URI of the store: models:/NAME@ALIAS, models:/NAME/VERSION, models:/ID or runs:/ID/model."""
    return name.startswith(("models:/", "runs:/"))


def resolve(uri: str) -> Checkpoint:
    """The checkpoint of a stored model, its weights in a folder that is made once.

    Its name has the number of the version in the place of an alias, which may move. UserError where there is no such model,
    one of its files was changed since it was logged, or its weights cannot hold what was trained (virtual tokens, ONNX).
    """
    store.configure()
    try:
        name = stored_code.with_version(uri)
        model_id = stored_code.logged_model_of(uri).model_id
    except store.ERRORS as error:
        raise UserError(
            f"--model_checkpoint {uri} cannot be read from the store: {first_line(error)}"
        ) from None
    folder = _place() / model_id
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The processes of a launcher all come here.
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / "config.json").is_file():
                with scratch() as copy, atomic_write(folder, replace_folder=True) as part:
                    bundle = stored_code.verified(f"models:/{model_id}", copy) / "artifacts" / "bundle"
                    _merge(uri, bundle, part)
    except OSError as error:
        raise UserError(
            f"--model_checkpoint {uri}: {folder} cannot be written: {error.strerror or error}."
        ) from None
    return Checkpoint(name, str(folder))


def trained_bundle(uri: str, folder: Path, called: str) -> Path:
    """The saved model of one training, copied into a folder and verified, with its base inside. called: its name in messages.

    UserError where the URI leads to several adapters on one base or to an ONNX version.
    """
    bundle = stored_models.copied(uri, folder)[1] / "artifacts" / "bundle"
    if not (bundle / BUNDLE).is_file() or read_bundle(bundle).runtime != "torch":
        raise UserError(f"{called} is no single trained model: name the run that trained it.")
    return bundle


def _place() -> Path:
    """Beside the artifacts of a local store; in the project for a server's models."""
    beside = store.artifact_location(FOLDER)
    return Path(unquote(urlparse(beside).path)) if beside else ROOT / "mlruns" / FOLDER


def _merge(uri: str, bundle: Path, folder: Path) -> None:
    """Write a saved model as transformers saves one that was trained whole."""
    if not (bundle / BUNDLE).is_file():
        raise UserError(
            f"--model_checkpoint {uri} holds several adapters on one base: name the run of one (runs:/ID/model)."
        )
    info = read_bundle(bundle)
    if info.runtime != "torch":
        raise UserError(
            f"--model_checkpoint {uri} is an ONNX version, whose weights cannot be trained: name the version that it was exported from."
        )
    if not merges(bundle):
        raise UserError(
            f"--model_checkpoint {uri} was trained by {info.technique}, whose trained parts cannot be merged into the weights "
            "of a base; start from a model of another technique."
        )
    model, tokenizer, _ = load_bundle(bundle, merge=True)
    saving.save_bundle(bundle.with_name("merged"), info, model, tokenizer)
    shutil.move(bundle.with_name("merged") / "base", folder)
