"""Prepared data in a few lines: how much there is, what was corrected, and what a reader should be warned of."""

from pathlib import Path
from typing import NamedTuple

from ..counts import count_of
from ..scoring.languages import rules_of
from .label_values import alike
from .record import DataRecord

_CORRECTED = {
    "repaired": (
        "answers had a wrong answer_start, or differed in case or white space, and were found in their paragraph",
        "answer had a wrong answer_start, or differed in case or white space, and was found in its paragraph",
    ),
    "located": (
        "answers had no answer_start and were found in their paragraph",
        "answer had no answer_start and was found in its paragraph",
    ),
    "ambiguous": (
        "of them stand there several times: the first place that is a whole word was taken",
        "of them stands there several times: the first place that is a whole word was taken",
    ),
    "empty_answers": (
        "answers without text were left out of training",
        "answer without text was left out of training",
    ),
    "made_ids": ("questions had no id and were given one", "question had no id and was given one"),
    "renamed_ids": (
        "questions of train had the id of another question in test or validation and were given one of their own",
        "question of train had the id of another question in test or validation and was given one of its own",
    ),
    "made_titles": ("articles had no title and were given one", "article had no title and was given one"),
    "skipped": (
        "questions were left out because of a fault: skipped.json lists them",
        "question was left out because of a fault: skipped.json lists it",
    ),
}
"""What was corrected, of several and of one."""
_NOTES = 10
"""How many answers that are not trained on are named."""


_LABELS = 10
"""How many labels are named, the most frequent ones."""


class Summary(NamedTuple):
    lines: list[str]
    warnings: list[str]


def summary(record: DataRecord, folder: Path) -> Summary:
    """What was prepared into a folder."""
    found = _of_questions(record, folder) if record.kind == "qa" else _of_texts(record, folder)
    found.lines.extend(f"  train takes {part['weight']:g} of {part['name']}" for part in record.mix)
    if record.test_by:
        found.warnings.append(
            f"  WARNING: no test data was given, so test was carved out of train, by {record.test_by}. Its scores show how a model "
            "does on data like its training data; they cannot be compared with scores on the authors' test set. --test_file "
            "(for a hub's data set --test_split) names one."
        )
    return found


def _of_texts(record: DataRecord, folder: Path) -> Summary:
    kind = "pairs of texts" if record.pairs else "texts"
    lines = [f"{folder}: {record.title}, fingerprint {record.fingerprint[:12]}"]
    for split, c in record.counts.items():
        counts = record.texts_by_label(split)
        most = sorted(counts, key=lambda name: -counts[name])[:_LABELS] if len(counts) > _LABELS else counts
        labels = ", ".join(f"{counts[name]} {name}" for name in most)
        labels += f", and {len(counts) - _LABELS} further labels" if len(counts) > _LABELS else ""
        if "without_label" in c:
            labels += f"; {c['without_label']} without a label"
        lines.append(f"  {split:10} {c['texts']:6} {kind} ({labels}), {c['different']} of them different")
    if record.skipped:
        words = [what.replace("question", "text") for what in _CORRECTED["skipped"]]
        lines.append(f"  {count_of(record.skipped, *words)}")
    shared = record.test_texts_also_in_train
    warnings = [f"  warning: {kind} of test that are in train or validation too: {shared}"] if shared else []
    for group in alike(record.labels):
        warnings.append(
            f"  warning: the labels {' and '.join(map(repr, group))} differ in case or spaces alone"
        )
    lacking = [name for name, count in record.texts_by_label("validation").items() if not count]
    if lacking:
        warnings.append(f"  warning: validation has no text with the label {', '.join(lacking[:_LABELS])}")
    return Summary(lines, warnings)


def _of_questions(record: DataRecord, folder: Path) -> Summary:
    lines = [f"{folder}: {record.title}, SQuAD {record.version}, fingerprint {record.fingerprint[:12]}"]
    lines += [
        f"  {split:10} {c['questions']:6} questions ({c['answerable']} answerable) on {count_of(c['paragraphs'], 'paragraphs')} "
        f"of {count_of(c['titles'], 'articles')}"
        for split, c in record.counts.items()
    ]
    if record.language:
        known = rules_of(record.language) is not None
        rules = (
            f"the rules for {record.language}"
            if known
            else f"SQuAD's rules, because none are published for {record.language}"
        )
        lines.append(f"  answers are scored by {rules}")
    corrected = {words: getattr(record, name) for name, words in _CORRECTED.items()}
    lines += [f"  {count_of(count, *words)}" for words, count in corrected.items() if count]
    warnings = [f"  not trained on: {note}" for note in (record.notes or ())[:_NOTES]]
    if (record.dropped or 0) > _NOTES:
        warnings.append(f"  ... {record.dropped} answers are not trained on in all")
    if record.validation_by == "paragraph":
        warnings.append(
            "  note: validation was carved by paragraph, because all training questions are of one article (or of articles that "
            "share paragraphs)"
        )
    for split in ("validation", "test"):
        if shared := getattr(record, f"{split}_paragraphs_also_in_train"):
            warnings.append(f"  warning: paragraphs of {split} that are in train too: {shared}")
    return Summary(lines, warnings)
