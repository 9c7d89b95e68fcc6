"""Questions of any source → `squad_data/`: a saved DatasetDict with train, validation and test, and a record of what was read.

The splits have the columns of the hub's `squad`: id, title, context, question, answers (text, answer_start).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError, first_line
from ..files import FileRecord, file_record
from ..paths import SAMPLE
from .columns import Columns
from .hub_files import download_parquet
from .prepared import SPLITS, write
from .question_files import read_questions
from .question_splits import features, only_language, split_counts
from .record import DataRecord, Example
from .squad_json import MOST_NOTES, SquadFile, made_title, read_rows
from .squad_shapes import marked
from .tables import Files, expand
from .validation_split import carve

HUB = {"squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"}


class Source(NamedTuple):
    """Where questions come from, as the record names it."""

    source: str
    name: str
    files: list[FileRecord]
    """What was read; where it is empty, `prepare_parts` takes the files that it reads."""
    hub: Mapping[str, str] = {}
    """`DataRecord.hub`."""
    language: str | None = None
    """Of all questions, whatever the files say; None: what they say."""


def prepare_files(
    train: Files,
    test: Files | None,
    output_dir: Path,
    *,
    name: str | None = None,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
    columns: Columns | None = None,
    form: str = "auto",
    language: str | None = None,
) -> DataRecord:
    """Prepare files of questions; returns the record. UserError names the file and place of any fault.

    Each is a file, or several, or a glob, in any format of `question_files`; columns and form as there. test: None: it is carved
    out of train like validation, and of the same size. name: of the data. language: of the questions (`language.checked`); None: what the files say.

    Answers that are not found in their context are left out of train, and stay in validation and test, where they are scored.
    on_bad_rows: "skip" leaves faulty questions out, and lists them with the reasons next to the data (`skipped.json`).
    """
    parts = {"train": expand(train)} | ({} if test is None else {"test": expand(test)})
    first = parts["train"][0]
    source = Source("files" if name is None else name, name or first.name, [], language=language)
    return prepare_parts(
        parts, output_dir, source, seed, validation_share, on_bad_rows, columns=columns, form=form
    )


def prepare_parts(
    parts: Mapping[str, Sequence[Path]],
    output_dir: Path,
    source: Source,
    seed: int,
    share: float,
    on_bad_rows: str = "error",
    *,
    columns: Columns | None = None,
    form: str = "auto",
) -> DataRecord:
    """Prepare the files of train, and of validation and test where there are any; returns the record."""
    read = {
        split: [
            read_questions(file, on_bad_rows, columns=columns, form=form, language=source.language)
            for file in files
        ]
        for split, files in parts.items()
    }
    _agree_on_version([file for files in read.values() for file in files])
    source = source._replace(
        files=source.files or [file_record(f.path) for files in read.values() for f in files]
    )
    whole = {split: _merged(files) for split, files in read.items()}
    train, validation, test = whole["train"], whole.get("validation"), whole.get("test")
    return _prepare(train, validation, test, output_dir, source, seed, share)


def _agree_on_version(files: Sequence[SquadFile]) -> None:
    """Make the version of all files one: rows of a table that mark nothing follow that of the others."""
    first = next((file for file in files if file.version_named), files[0])
    if any(file.version == "v2.0" for file in files):
        for file in files:
            file.version = "v1.1" if file.version_named and file.version == "v1.1" else "v2.0"
    other = next((file for file in files if file.version != first.version), None)
    if other is not None:
        raise UserError(
            f"{first.path} is SQuAD {first.version} and {other.path} is {other.version}: train and test must be of one "
            'version; where no question of a file is marked is_impossible, its "version": "v2.0" says that some could be.'
        )


def _merged(files: Sequence[SquadFile]) -> SquadFile:
    """Several files as one: a question whose id an earlier file uses for another one is renamed after its file.

    Rows without a title are one article, whatever their file: it is divided by paragraphs, not by files.
    """
    if len(files) == 1:
        return files[0]
    whole = SquadFile(files[0].path, files[0].version)
    home: dict[str, tuple[Path, Example]] = {}
    for file in files:
        renamed: dict[str, str] = {}
        taken = {*home, *(e["id"] for e in file.examples)}
        for e in file.examples:
            path, other = home.get(e["id"], (file.path, None))
            if other is not None and (other["context"], other["question"]) == (e["context"], e["question"]):
                raise UserError(
                    f"id {e['id']!r} is used twice, in {path} and {file.path}; ids must be unique."
                )
            if other is not None:
                renamed[e["id"]] = _free(f"{file.path.stem}-{e['id']}", taken)
                taken.add(renamed[e["id"]])
        made = made_title(file.path) if file.counts["made_titles"] and not file.version_named else None
        for e in (*file.examples, *file.placed):
            e["id"] = renamed.get(e["id"], e["id"])
            e["title"] = made_title(whole.path) if e["title"] == made else e["title"]
        home |= {e["id"]: (file.path, e) for e in file.examples}
        whole.examples += file.examples
        whole.placed += file.placed
        whole.repaired += file.repaired
        whole.dropped += file.dropped
        whole.notes += file.notes
        whole.counts += file.counts
        whole.counts["renamed_ids"] += len(renamed)
        whole.skipped += [{"file": file.path.name, **fault} for fault in file.skipped]
    return whole


def _free(name: str, taken: Container[str]) -> str:
    """The name, or one made of it that is not taken."""
    n, free = 1, name
    while free in taken:
        n += 1
        free = f"{name}-{n}"
    return free


def prepare_sample(output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> DataRecord:
    """Prepare the packaged sample; needs no network."""
    return prepare_files(
        SAMPLE / "train-v2.0.json",
        SAMPLE / "test-v2.0.json",
        output_dir,
        name="sample",
        seed=seed,
        validation_share=validation_share,
    )


def prepare_hub(
    dataset: str, output_dir: Path, *, seed: int = 42, validation_share: float = 0.1
) -> DataRecord:
    """Prepare `squad` or `squad_v2` from the hub; its validation split, the official development set, becomes test."""
    if dataset not in HUB:
        raise UserError(f"--dataset {dataset!r}: choose one of {', '.join(HUB)}.")
    import pyarrow.parquet

    files = download(dataset)
    version = "v2.0" if dataset == "squad_v2" else "v1.1"
    parts = {
        split: read_rows(Path(HUB[dataset]) / split, pyarrow.parquet.read_table(names).to_pylist(), version)
        for split, names in files.items()
    }
    source = Source("hub", dataset, [file_record(file) for names in files.values() for file in names])
    return _prepare(parts["train"], None, parts["validation"], output_dir, source, seed, validation_share)


def download(dataset: str) -> dict[str, list[Path]]:
    """The parquet files of `squad` or `squad_v2` by split, from the cache or the hub; NotHere if they are not available."""
    return download_parquet(HUB[dataset], ("train", "validation"), instead="use --source files or sample")


def prepare_saved(
    path: Path,
    output_dir: Path,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
    language: str | None = None,
) -> DataRecord:
    """Prepare a folder written by `save_to_disk`: train, validation and test as they are, or train and one other split as test.

    Where it has train alone, test is carved out of it like validation. Its rows are checked like those of files.
    """
    from datasets import load_from_disk

    if not (Path(path) / "dataset_dict.json").is_file():
        raise UserError(f"--path {path}: no folder written by DatasetDict.save_to_disk.")
    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise UserError(f"--path {path} cannot be read: {first_line(error)}") from None
    if "train" not in saved:
        raise UserError(f"--path {path} holds {sorted(saved)}: it must hold train.")
    rows = {split: saved[split].to_list() for split in SPLITS if split in saved}
    for split in rows:
        missing = {"id", "context", "question", "answers"} - set(saved[split].column_names)
        if missing:
            raise UserError(f"--path {path}: split {split!r} has no column {sorted(missing)[0]!r}.")
    answered = not any(marked(row).get("is_impossible") for part in rows.values() for row in part)
    version = "v1.1" if answered else "v2.0"
    parts = {
        split: read_rows(Path(path) / split, part, version, on_bad_rows, language)
        for split, part in rows.items()
    }
    files = [file_record(file) for file in sorted(Path(path).rglob("*.arrow"))]
    source = Source("saved", Path(path).name, files)
    validation = parts["validation"] if len(parts) == 3 else None
    test = parts.get("test", parts.get("validation"))
    return _prepare(parts["train"], validation, test, output_dir, source, seed, validation_share)


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """sha256 over the content of every question of every split, in order."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        for e in splits[split]:
            row = [
                e["id"],
                e["title"],
                e["context"],
                e["question"],
                e["answers"]["text"],
                e["answers"]["answer_start"],
                *([e["origin"]] if "origin" in e else ()),
                *([{"language": e["language"]}] if e.get("language") else ()),
            ]
            digest.update(json.dumps(row, ensure_ascii=True).encode())
    return digest.hexdigest()


def _prepare(
    train: SquadFile,
    validation: SquadFile | None,
    test: SquadFile | None,
    output_dir: Path,
    source: Source,
    seed: int,
    share: float,
) -> DataRecord:
    """Write what was read, with validation and test carved out of train where there is none."""
    read = [part for part in (train, validation, test) if part is not None]
    if not train.placed:
        raise UserError(
            f"{train.path}: none of its answers is found in its context, so there is nothing to train on."
        )
    renamed = _part_ids(train, read[1:])
    skipped = [{"file": part.path.name, **fault} for part in read for fault in part.skipped]
    counts = sum((part.counts for part in read), Counter())
    splits, carved = _split(train, validation, test, seed, share)
    _check_ids(splits)
    record = DataRecord(
        source=source.source,
        name=source.name,
        version=train.version,
        language=only_language(splits),
        files=source.files,
        hub=dict(source.hub),
        repaired=sum(part.repaired for part in read),
        located=counts["located"],
        ambiguous=counts["ambiguous"],
        dropped=sum(part.dropped for part in read),
        notes=_notes(read),
        empty_answers=counts["empty_answers"],
        made_ids=counts["made_ids"],
        made_titles=counts["made_titles"],
        renamed_ids=renamed + counts["renamed_ids"],
        skipped=len(skipped),
        seed=seed,
        validation_share=share,
        validation_by=carved["validation"],
        test_by=carved["test"] if test is None else None,
        **split_counts(splits),
        fingerprint=fingerprint(splits),
    )
    return write(splits, record, output_dir, features(splits), skipped)


def _split(
    train: SquadFile, validation: SquadFile | None, test: SquadFile | None, seed: int, share: float
) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """({split: its examples}, {split: "article" or "paragraph" if it was carved by it, else "given"})."""
    placed = {e["id"]: e for e in train.placed}
    rest, carved = train.examples, {"validation": "given", "test": "given"}
    if test is None:
        if validation is None and (paragraphs := len({e["context"] for e in rest})) < 3:
            raise UserError(
                f"{train.path}: its questions are on {paragraphs} paragraphs; to carve both validation and test out of them, three "
                "are needed: add more, or give test data (--test_file)."
            )
        rest, tested, carved["test"] = carve(rest, share, seed)
    else:
        tested = test.examples
    if validation is None:
        rest, validated, carved["validation"] = carve(rest, share, seed)
    else:
        validated = validation.examples
    trained = [placed[e["id"]] for e in rest if e["id"] in placed]
    if not trained:
        raise UserError(
            "None of the questions left for train has an answer that is found in its context; correct answer_start."
        )
    return dict(zip(SPLITS, (trained, validated, tested), strict=True)), carved


def _check_ids(splits: Mapping[str, Sequence[Example]]) -> None:
    home: dict[str, str] = {}
    for split, part in splits.items():
        for e in part:
            if e["id"] in home:
                raise UserError(
                    f"id {e['id']!r} is used twice, in {home[e['id']]} and {split}; ids must be unique."
                )
            home[e["id"]] = split


def _part_ids(train: SquadFile, others: Sequence[SquadFile]) -> int:
    """Rename questions of train that have the id of another question in another file; returns how many.

    Tools number the questions of each file from 0. Validation and test keep their ids, because predictions are found by them.
    A question that is in both files keeps its id, and is refused later.
    """
    taken = {e["id"]: (e["context"], e["question"]) for part in others for e in part.examples}
    used = {*taken, *(e["id"] for e in train.examples)}
    renamed = {}
    for e in train.examples:
        if e["id"] in taken and taken[e["id"]] != (e["context"], e["question"]):
            new = f"train-{e['id']}"
            while new in used:
                new = f"train-{new}"
            used.add(new)
            renamed[e["id"]] = new
    for e in (*train.examples, *train.placed):
        e["id"] = renamed.get(e["id"], e["id"])
    return len(renamed)


def _notes(read: Sequence[SquadFile]) -> list[str]:
    return [note for file in read for note in file.notes][:MOST_NOTES]
