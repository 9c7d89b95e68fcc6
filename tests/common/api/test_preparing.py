"""Rows, DataFrames and files become prepared data."""

import json

import pandas as pd
import pytest

from common.api import prepare
from common.data import prepared
from common.errors import UserError
from tests.scripts.conftest import squad_json
from tests.support.questions import EXAMPLES
from tests.support.texts import make_texts


def rows(part):
    return [
        e | {"id": f"{part}-{e['id']}", "title": f"{part} {e['title']}", "context": f"{e['context']} {part}"}
        for e in EXAMPLES
    ]


@pytest.mark.parametrize("made", [list, pd.DataFrame])
def test_rows_are_prepared_as_a_file_is(made, tmp_path):
    folder = prepare(made(rows("train")), made(rows("test")), tmp_path / "own", validation_share=0.3)
    assert folder == tmp_path / "own"
    files = [tmp_path / "train.json", tmp_path / "test.json"]
    for file in files:
        file.write_text(squad_json(rows(file.stem)))
    splits, record = prepared.load(folder)
    _, of_files = prepared.load(prepare(*files, tmp_path / "files", validation_share=0.3))
    assert record.fingerprint == of_files.fingerprint and record.version == "v2.0"
    assert len(splits["test"]) == len(EXAMPLES) and record.name == "own-train.json"


def test_what_a_frame_lacks_is_missing(tmp_path):
    train = pd.DataFrame(rows("train"))
    train.loc[0, "title"] = float("nan")
    _, record = prepared.load(prepare(train, rows("test"), tmp_path / "own", validation_share=0.3))
    assert record.counts["test"]["questions"] == len(EXAMPLES)


def test_texts_are_prepared_for_their_task(tmp_path):
    frame = pd.DataFrame(make_texts(24))[["text", "label"]]
    folder = prepare(frame, frame[:8], tmp_path / "reviews", task="classification", validation_share=0.3)
    _, record = prepared.load(folder)
    assert record.kind == "text" and record.counts["test"]["texts"] == 8


def test_texts_with_several_labels_and_a_name(tmp_path):
    frame = pd.DataFrame(
        [row | {"label": ["any", str(row["label"])][: 1 + i % 2]} for i, row in enumerate(make_texts(24))]
    )
    task = "multi-label-classification"
    folder = prepare(frame, frame[:8], tmp_path / "tags", task=task, validation_share=0.3, name="tags")
    _, record = prepared.load(folder)
    assert (record.kind, record.called, record.labels) == ("multi-label text", "tags", ("0", "1", "any"))
    with pytest.raises(UserError, match="--name"):
        prepare(frame, frame[:8], tmp_path / "tags", task=task, name="a/b")


@pytest.mark.parametrize(
    ("train", "settings", "message"),
    [
        ([], {}, "own-train has no rows"),
        ([{"question": "Q?", "context": "C."}], {}, "own-train.json"),
        ([{"question": object()}], {}, "which is not text, a number or a list"),
        (None, {"on_bad_rows": "drop"}, "on_bad_rows is 'drop': choose error or skip"),
        (None, {"validation_share": 1}, "validation_share is 1: it must be above 0 and below 1"),
        (None, {"task": "translation"}, "--task is 'translation'"),
        ("/nowhere.json", {}, "/nowhere.json: No such file"),
    ],
)
def test_what_is_wrong_is_named(train, settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare(rows("train") if train is None else train, rows("test"), tmp_path / "own", **settings)
    assert not (tmp_path / "own").exists()


def test_faulty_rows_can_be_left_out(tmp_path):
    faulty = [*rows("train"), {"id": "x", "question": "Q?", "context": None, "answers": None}]
    folder = prepare(faulty, rows("test"), tmp_path / "own", validation_share=0.3, on_bad_rows="skip")
    assert len(json.loads((folder / "skipped.json").read_text())) == 1


def test_columns_are_named_and_test_is_carved(tmp_path):
    frame = pd.DataFrame(rows("train")).rename(columns={"question": "ask"})
    folder = prepare(frame, None, tmp_path / "own", columns={"question": "ask"}, validation_share=0.3)
    _, record = prepared.load(folder)
    assert record.test_by == "article" and sum(c["questions"] for c in record.counts.values()) == len(
        EXAMPLES
    )
