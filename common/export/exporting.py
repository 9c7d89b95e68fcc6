"""From a stored model to a folder that others open: refused before anything is written, or written whole and checked."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_write
from ..errors import UserError
from ..scratch import scratch
from ..tracking import store
from . import card, checking, formats, publishing, samples, source, writing


@dataclass(frozen=True)
class Exported:
    """What was written. lines: sentences for the reader."""

    folder: Path
    format: str
    lines: tuple[str, ...]


@store.explained()
def export(
    model: str,
    to: str | Path,
    format: str = "merged",
    licence: str | None = None,
    push_to_hub: str | None = None,
    private: bool = False,
) -> Exported:
    """Write a stored model into a new or empty folder, in a format of `formats.FORMATS`.

    model: models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL_ID, runs:/ID/model, a run's id, or a folder. licence: as the
    hub calls it, such as "apache-2.0", for the model card. push_to_hub: a new repository of the hub that gets the folder.

    The folder is opened in a process without this project, and must give the same logits there. UserError where the model
    cannot be exported like this, or the folder cannot be written: then nothing is left. Also where the hub refuses the
    upload: then the folder is whole.
    """
    if format not in formats.FORMATS:
        raise UserError(f"--format is {format!r}: choose one of {', '.join(formats.FORMATS)}.")
    if private and push_to_hub is None:
        raise UserError("--private is for --push_to_hub: name the repository too, or leave it out.")
    target = _place(to)
    if push_to_hub is not None:
        publishing.check(push_to_hub)
    with scratch() as place:
        stored = source.opened(model, place)
        with source.opening(stored.name):
            formats.check(format, stored.bundle, stored.info)
        about, called = card.recorded(stored), (push_to_hub or target.name).rpartition("/")[2]
        with _new(target) as part:
            written = writing.WRITERS[format](stored, part)
            said = checking.check(stored, format, part, written)
            program = samples.sample(stored, format, written.tokenizer, push_to_hub or ".", written.hub_base)
            card.write(
                part,
                stored,
                format,
                program,
                about,
                name=called,
                licence=licence,
                checked=said,
                hub_base=written.hub_base,
            )
    lines = [f"{model} → {target} ({format}).", said]
    if about.missing:
        lines.append(f"Its card lacks figures: {about.missing}.")
    if push_to_hub is not None:
        lines.append(f"Published: {publishing.push(target, push_to_hub, private)}")
    return Exported(target, format, tuple(lines))


def _place(to: str | Path) -> Path:
    """The folder that is written; UserError where it holds something."""
    target = Path(to).expanduser()
    if target.is_dir():
        if any(target.iterdir()):
            raise UserError(f"--to {target} is not empty: name a new or empty folder.")
    elif target.exists() or target.is_symlink():
        raise UserError(f"--to {target} is no folder: name a new or empty one.")
    # A trailing dot or slash would leave no name to write beside.
    return target.resolve()


@contextmanager
def _new(target: Path) -> Iterator[Path]:
    """A folder that gets the target's name at the end. After an error nothing is left, neither of it nor of new parents."""
    parents = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            part.mkdir()
            yield part
    except BaseException as error:
        for folder in parents:
            # Somebody else may have put something there meanwhile.
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"--to {target} cannot be written: {error.strerror or error}.") from None
        raise
