"""The record is the same JSON when it is read and written again, also what other releases wrote."""

import json
from dataclasses import replace

import pytest

from common.data import labelled_texts
from common.data.prepared import RECORD, load
from common.data.record import DataRecord
from common.errors import UserError
from tests.support.texts import make_texts, write_csv, write_parquet

QUESTIONS = {
    "source": "files",
    "name": "train.json",
    "version": "v2.0",
    "files": [{"name": "train.json", "sha256": "00", "bytes": 10}],
    "repaired": 0,
    "dropped": 1,
    "notes": ["train.json: article 0"],
    "made_ids": 2,
    "seed": 42,
    "validation_share": 0.1,
    "validation_by": "article",
    "counts": {"train": {"questions": 30}, "validation": {"questions": 5}, "test": {"questions": 20}},
    "validation_paragraphs_also_in_train": 0,
    "test_paragraphs_also_in_train": 3,
    "fingerprint": "ab" * 32,
    "stored": {"train/state.json": "01"},
}
TEXTS = {
    "kind": "text",
    "labels": ["negative", "positive"],
    "version": "binary",
    "source": "text",
    "name": "train.parquet",
    "files": [],
    "seed": 42,
    "validation_share": 0.1,
    "counts": {},
    "test_texts_also_in_train": 0,
    "skipped": 3,
    "fingerprint": "cd" * 32,
    "stored": {},
}


def test_questions_are_the_same_json_to_the_byte():
    record = DataRecord.from_json(QUESTIONS)
    assert json.dumps(record.to_json()) == json.dumps(QUESTIONS)
    assert (record.kind, record.labels, record.made_ids, record.renamed_ids) == ("qa", (), 2, 0)


def test_texts_are_the_same_json():
    record = DataRecord.from_json(TEXTS)
    assert json.loads(json.dumps(record.to_json())) == {k: v for k, v in TEXTS.items() if k != "stored"}
    assert (record.kind, record.labels, record.skipped) == ("text", ("negative", "positive"), 3)


def test_what_another_release_wrote_beside_it_is_kept():
    more = QUESTIONS | {"licence": "MIT", "tables": {"rows": 3}}
    record = DataRecord.from_json(more)
    assert record.further == {"licence": "MIT", "tables": {"rows": 3}} and record.to_json() == more


def test_only_questions_of_version_2_may_have_no_answer():
    record = DataRecord.from_json(QUESTIONS)
    assert record.has_unanswerable
    assert not replace(record, version="v1.1").has_unanswerable
    assert not DataRecord.from_json(TEXTS).has_unanswerable


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {name: value for name, value in QUESTIONS.items() if name != "fingerprint"},
        QUESTIONS | {"version": 2},
        QUESTIONS | {"counts": []},
        QUESTIONS | {"stored": None},
        TEXTS | {"labels": "negative"},
    ],
)
def test_a_damaged_record_is_refused(content, tmp_path):
    with pytest.raises((TypeError, KeyError)):
        DataRecord.from_json(content)
    (tmp_path / RECORD).write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged; prepare it again"):
        load(tmp_path)


def test_what_is_written_is_what_the_folder_holds(prepared, tmp_path):
    train = write_parquet(tmp_path / "train.parquet", make_texts(20, 1))
    texts = labelled_texts.prepare_files(
        train, write_csv(tmp_path / "test.csv", make_texts(8, 2)), tmp_path / "o"
    )
    for folder, record in (prepared, (tmp_path / "o", texts)):
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        assert written == json.loads(json.dumps(record.to_json())) and written["stored"]
        assert not {"further", "has_unanswerable"} & set(written)
