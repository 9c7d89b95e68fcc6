"""What is exported: a stored model, whole, with its base inside, and the run that it came from."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedTokenizerBase

from ..errors import UserError, first_line
from ..files import read_yaml
from ..models.bundles import (
    BUNDLE,
    REFERENCE,
    BundleInfo,
    check_base,
    load_bundle,
    read_bundle,
    read_reference,
)
from ..models.families import saved_head
from ..serving import stored_models
from ..tracking import runs, store

_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What reading JSON, weights and adapters raises where something in them is missing or of another kind."""

_BASE = re.compile(r"runs:/([0-9a-f]{32})/base")


@dataclass(frozen=True)
class Stored:
    """A saved model with its base inside. name: as messages call it."""

    name: str
    bundle: Path
    info: BundleInfo
    run_id: str | None = None
    """The run that logged it; None where its files do not say."""
    of_store: bool = False
    """Whether it was copied from the store."""


@contextmanager
def opening(called: str) -> Iterator[None]:
    """What a damaged or incomplete model raises where it is read, as a UserError. called: its name."""
    try:
        yield
    except _DAMAGED as error:
        what = f"{type(error).__name__}: {first_line(error)}"[:300].rstrip(".")
        raise UserError(
            f"{called} cannot be opened ({what}). If its files are damaged or incomplete, copy it from the store again."
        ) from error


def load(
    stored: Stored, *, merge: bool = False
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase, BundleInfo]:
    """`bundles.load_bundle` of a stored model; UserError where it is damaged."""
    with opening(stored.name):
        return load_bundle(stored.bundle, merge=merge)


def opened(model: str, folder: Path) -> Stored:
    """The model of a URI of the store, of a run's id, or of a folder that MLflow wrote; what is copied goes into `folder`.

    From the store, each file is held against what was recorded when the model was logged. UserError if there is no such model,
    if it holds several adapters, if it is an ONNX version already, or if its files are damaged.
    """
    with opening(model):
        return _opened(model, folder)


def _opened(model: str, folder: Path) -> Stored:
    place = Path(model).expanduser()
    if place.is_dir():
        found = _of_folder(model, place, folder)
    elif uri := stored_models.uri_of(model):
        found = _of_store(model, uri, folder)
    else:
        raise UserError(
            f"{model}: there is no such folder; write models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model, a run's id, or "
            "the folder of a stored model."
        )
    if found.info.runtime != "torch":
        raise UserError(
            f"{model} is an ONNX version: name the version that it was made of (its tag exported_from)."
        )
    # Files of earlier versions do not name it.
    head = found.info.head or saved_head(
        AutoConfig.from_pretrained(found.bundle / "base", trust_remote_code=False)
    )
    return replace(found, info=replace(found.info, head=head))


def _of_store(called: str, uri: str, folder: Path) -> Stored:
    try:
        logged, stored = stored_models.copied(uri, folder, called)
    except (*store.ERRORS, OSError, ValueError) as error:
        raise UserError(f"{called} cannot be read: {first_line(error).rstrip('.')}.") from None
    bundle = _bundle(called, stored)
    return Stored(called, bundle, read_bundle(bundle), logged.source_run_id, of_store=True)


def _of_folder(called: str, place: Path, folder: Path) -> Stored:
    bundle = _bundle(called, place)
    about: dict[str, Any] = {}
    if (place / "MLmodel").is_file():
        about = read_yaml(place / "MLmodel") or {}
    info = read_bundle(bundle)
    if read_reference(bundle) is not None and not (bundle / "base").is_dir():
        whole = folder / "bundle"
        shutil.copytree(bundle, whole)
        _bring_base(called, whole, info, folder)
        bundle = whole
    if not (bundle / "base").is_dir():
        raise UserError(f"{called} holds no base, and names none ({REFERENCE}): name a registered version.")
    return Stored(called, bundle, info, about.get("run_id"))


def _bundle(called: str, place: Path) -> Path:
    bundle = stored_models.in_folder(place)
    if bundle is None:
        raise UserError(
            f"{called} holds no model of this project (no {BUNDLE}): name the folder of a stored model."
        )
    if not (bundle / BUNDLE).is_file():
        raise UserError(
            f"{called} holds the adapters of several techniques: export the run of one of them (its tags name them)."
        )
    return bundle


def _bring_base(called: str, bundle: Path, info: BundleInfo, folder: Path) -> None:
    """Put the base that a copied adapter refers to inside it."""
    match = _BASE.fullmatch(str((read_reference(bundle) or {})["uri"]))
    if match is None:
        raise UserError(f"{called} is not exported: its {REFERENCE} refers to no base of a store.")
    try:
        # A folder may have come from another machine: no store is made for it here.
        if not store.exists():
            raise UserError(f"there is no store {store.without_secrets(store.tracking_uri())}")
        store.configure()
        runs.download(match[1], ["base"], folder / "of-store")
    except (UserError, *store.ERRORS) as error:
        raise UserError(
            f"{called} holds an adapter without its base, which the store does not give ({first_line(error).rstrip('.')}): name a "
            "registered version, or its folder, which holds both."
        ) from None
    base = folder / "of-store" / "base"
    if not base.is_dir():
        raise UserError(
            f"{called} holds an adapter without its base, and the store has none: name a registered version."
        )
    check_base(base, info.base_fingerprint)
    shutil.move(base, bundle / "base")
    (bundle / REFERENCE).unlink()
