import json
import re

import pytest

from common.data import prepared, questions
from common.data.squad_json import read_squad_json
from tests.scripts.conftest import call_script, run_script, squad_json


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(train, test) of ten and two articles, with one answer whose start is wrong and one that cannot be placed."""
    folder = tmp_path_factory.mktemp("files")
    made = []
    for part, articles in (("train", 10), ("test", 2)):
        rows = []
        for n in range(articles * 4):
            context = f"{part} {n} is green or red, or red."
            word, start = ("green", context.index("green")) if n > 1 else ("green", 0) if n else ("blue", 0)
            answers = {"text": [word], "answer_start": [start]}
            rows.append(
                {
                    "id": f"{part}{n}",
                    "title": f"{part} {n // 4}",
                    "context": context,
                    "question": "Which colour?",
                    "answers": answers,
                }
            )
        made.append(folder / f"{part}.json")
        made[-1].write_text(squad_json(rows, "1.1"))
    return tuple(made)


def prepare(*args, **kwargs):
    """In a process of its own, as it is typed."""
    return run_script("prepare_data.py", *args, **kwargs)


def called(*args, **kwargs):
    return call_script("prepare_data.py", *args, **kwargs)


def test_files_are_prepared_and_told_of(files, tmp_path):
    done = prepare(
        "--source", "files", "--train_file", files[0], "--test_file", files[1], "--output_dir", tmp_path / "o"
    )
    splits, record = prepared.load(tmp_path / "o")
    assert {n: len(s) for n, s in splits.items()} == {"train": 35, "validation": 4, "test": 8}
    assert (record.repaired, record.dropped) == (2, 2)
    # What is not found is not trained on, and is scored as the official script scores it.
    assert splits["test"][0]["answers"] == {"text": ["blue"], "answer_start": [-1]}
    assert "train0" not in {*splits["train"]["id"], *splits["validation"]["id"]}
    assert record.fingerprint[:12] in done.stdout
    for split, size in (("train", 35), ("validation", 4), ("test", 8)):
        assert re.search(rf"{split} +{size} questions \({size} answerable\)", done.stdout)
    assert "2 answers had a wrong answer_start" in done.stdout
    for file, id_ in zip(files, ("train0", "test0"), strict=True):
        assert re.search(
            rf"not trained on: {re.escape(str(file))}: article 0 .*{id_!r}.*nor elsewhere", done.stderr
        )


def test_relative_paths_start_at_the_working_directory(files, tmp_path):
    (tmp_path / "in").mkdir()
    for file in files:
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    paths = ("--train_file", "in/train.json", "--test_file", "in/test.json", "--output_dir", "out/data")
    prepare("--source", "files", *paths, cwd=tmp_path)
    assert prepared.load(tmp_path / "out" / "data")[1].source == "files"


def test_the_sample_and_seed_and_share(tmp_path):
    for name, flags in {"a": (), "b": ("--seed", 7), "c": ("--validation_share", 0.3)}.items():
        called("--source", "sample", "--output_dir", tmp_path / name, *flags)
    a, b, c = (prepared.load(tmp_path / name)[1] for name in "abc")
    assert a.source == "sample" and a.version == "v2.0" and a.seed == 42 and b.seed == 7
    assert a.fingerprint != b.fingerprint and a.counts["test"] == b.counts["test"]
    total = a.counts["train"]["questions"] + a.counts["validation"]["questions"]
    assert 0.07 < a.counts["validation"]["questions"] / total < 0.13
    assert 0.25 < c.counts["validation"]["questions"] / total < 0.35


def test_a_saved_folder_is_prepared(files, tmp_path):
    questions.prepare_files(*files, tmp_path / "first")
    done = prepare("--source", "saved", "--path", tmp_path / "first", "--output_dir", tmp_path / "second")
    assert (
        prepared.load(tmp_path / "first")[1].fingerprint == prepared.load(tmp_path / "second")[1].fingerprint
    )
    assert "warning" not in done.stderr


def test_one_article_is_carved_by_paragraph_and_it_says_so(files, tmp_path):
    examples = [e | {"title": "only"} for e in read_squad_json(files[0]).examples]
    (tmp_path / "one.json").write_text(squad_json(examples, "1.1"))
    paths = ("--train_file", tmp_path / "one.json", "--test_file", files[1], "--output_dir", tmp_path / "o")
    assert "carved by paragraph" in called("--source", "files", *paths).stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html></html>", "is a web page"),
        (b'{"version": "1.1",\r\n "data": [}', "line 2, column 11"),
        (b'{"data": "Z\xfcrich"}', "byte 11 is 0xfc"),
        (b"", "is empty"),
        (None, "is a folder"),
    ],
    ids=["html", "malformed", "latin-1", "empty", "folder"],
)
def test_a_bad_file_is_a_line_without_traceback_and_nothing_is_written(content, message, files, tmp_path):
    bad = tmp_path / "bad.json"
    bad.mkdir() if content is None else bad.write_bytes(content)
    paths = ("--train_file", bad, "--test_file", files[1], "--output_dir", tmp_path / "o")
    done = called("--source", "files", *paths)
    assert done.returncode == 2 and message in done.stderr and str(bad) in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"bad.json"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--source"),
        (("--source", "disk"), "invalid choice"),
        (("--source", "files"), "--source files needs --train_file"),
        (("--source", "files", "--train_file", "x"), "x: No such file"),
        (("--source", "files", "--train_file", "*.none"), "*.none: no file matches it"),
        (("--source", "files", "--train_file", "x", "--format", "y"), "invalid choice"),
        (("--source", "files", "--train_file", "x", "--columns", "y"), "is not FIELD=COLUMN"),
        (("--source", "saved"), "--source saved needs --path"),
        (("--source", "sample", "--path", "x"), "--path belongs to --source saved or aclimdb"),
        (("--source", "sample", "--dataset", "squad"), "--dataset belongs to --source hub"),
        (("--source", "hub", "--dataset", "glue"), "The hub's glue is not available"),
        (("--source", "sample", "--test_split", "test"), "--test_split belongs to --source hub"),
        (("--source", "mix"), "--source mix needs --mix"),
        (("--source", "text", "--train_file", "x"), "x: No such file"),
        (("--source", "aclimdb"), "--source aclimdb needs --path"),
        (
            ("--source", "sample", "--validation_share", "2"),
            "--validation_share: '2' is not a finite number above 0 and below 1",
        ),
        (("--source", "saved", "--path", "nowhere"), "no folder written by DatasetDict.save_to_disk"),
        (("--source", "hub"), "Go online, or use --source files or sample"),
    ],
)
def test_a_mistake_leaves_with_2_and_a_reason(flags, message, tmp_path, monkeypatch):
    # The hub is off in tests.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    done = called(*flags, "--output_dir", tmp_path / "o", cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_a_strangers_folder_is_refused(files, tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"mine": 1}))
    (tmp_path / "thesis.txt").write_text("years of work")
    done = called("--source", "sample", "--output_dir", tmp_path)
    assert done.returncode == 2 and "did not write" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_help_tells_the_sources_and_where_it_ends():
    shown = " ".join(called("--help").stdout.split())
    for word in ("sample", "files", "hub", "saved", "record.json", "squad_data)", "(default: 0.1)"):
        assert word in shown
    assert "None" not in shown and "==SUPPRESS==" not in shown
    assert all(f"{name}_data" in shown for name in ("imdb", "mixed", "multi_label"))


def test_faulty_questions_can_be_skipped_and_are_listed(files, tmp_path):
    content = json.loads(files[0].read_text())
    content["data"][0]["paragraphs"][2]["qas"][0]["question"] = " "
    (tmp_path / "train.json").write_text(json.dumps(content))
    paths = ("--train_file", tmp_path / "train.json", "--test_file", files[1], "--output_dir", tmp_path / "o")
    refused = called("--source", "files", *paths)
    assert refused.returncode == 2 and "the question is empty" in refused.stderr
    assert not (tmp_path / "o").exists()
    for _ in range(2):
        done = called("--source", "files", *paths, "--on_bad_rows", "skip")
    assert "1 question was left out because of a fault" in done.stdout
    (skipped,) = json.loads((tmp_path / "o" / "skipped.json").read_text())
    assert skipped["file"] == "train.json" and "the question is empty" in skipped["reason"]
    assert prepared.load(tmp_path / "o")[1].skipped == 1


def test_validation_is_scored_by_all_references_and_train_holds_placed_answers_alone(files, tmp_path):
    """One question of each article has an answer that is not found: whichever article is validation has one."""
    content = json.loads(files[0].read_text())
    for article in content["data"]:
        article["paragraphs"][0]["qas"][0]["answers"] = [{"text": "mauve", "answer_start": 0}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    paths = ("--train_file", tmp_path / "train.json", "--test_file", files[1], "--output_dir", tmp_path / "o")
    called("--source", "files", *paths)
    splits = prepared.load(tmp_path / "o")[0]
    unplaced = {"text": ["mauve"], "answer_start": [-1]}
    assert unplaced in splits["validation"]["answers"][:]
    assert all(start >= 0 for answers in splits["train"]["answers"] for start in answers["answer_start"])


def test_questions_with_nothing_to_train_on_are_refused(files, tmp_path):
    content = json.loads(files[0].read_text())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                qa["answers"] = [{"text": "mauve", "answer_start": 0}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    paths = ("--train_file", tmp_path / "train.json", "--test_file", files[1], "--output_dir", tmp_path / "o")
    refused = called("--source", "files", *paths)
    assert refused.returncode == 2 and "nothing to train on" in refused.stderr


def test_tables_are_prepared_by_their_columns_and_test_is_carved_loudly(tmp_path):
    rows = [
        "frage;absatz;antwort",
        *(f"Wie hoch ist {n}?;Turm {n}: {n} Meter, {n} Meter.;{n} meter" for n in range(40)),
    ]
    for n in range(2):
        (tmp_path / f"part{n}.csv").write_text(
            "\n".join([rows[0], *rows[1 + 20 * n : 21 + 20 * n]]), encoding="utf-8"
        )
    flags = ("--columns", "question=frage,context=absatz,answer=antwort", "--output_dir", tmp_path / "o")
    done = prepare("--source", "files", "--train_file", tmp_path / "part*.csv", *flags)
    splits, record = prepared.load(tmp_path / "o")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 32, "validation": 4, "test": 4}
    assert (record.located, record.ambiguous, record.test_by) == (40, 40, "paragraph")
    assert "WARNING: no test data was given, so test was carved out of train, by paragraph" in done.stderr
    assert "40 of them stand there several times" in done.stdout
    assert splits["train"][0]["answers"]["text"][0].endswith(" Meter")


def test_sets_are_mixed_and_read_from_a_folder_like_a_repository(files, tmp_path):
    paths = ("--train_file", files[0], "--test_file", files[1])
    prepare("--source", "files", *paths, "--output_dir", tmp_path / "mine")
    (tmp_path / "repository").mkdir()
    for split, file in zip(("train", "test"), files, strict=True):
        rows = read_squad_json(file).examples
        (tmp_path / "repository" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    hub = ("--source", "hub", "--dataset", tmp_path / "repository", "--output_dir", tmp_path / "theirs")
    prepare(*hub, env={"HF_DATASETS_CACHE": str(tmp_path / "cache")})
    mine, theirs = (prepared.load(tmp_path / name)[1] for name in ("mine", "theirs"))
    assert mine.fingerprint == theirs.fingerprint and theirs.hub["test_split"] == "test"
    mix = f"{tmp_path / 'mine'},{tmp_path / 'theirs'}=0.2"
    done = prepare("--source", "mix", "--mix", mix, "--output_dir", tmp_path / "both")
    assert "train takes 0.2 of theirs" in done.stdout
    assert set(prepared.load(tmp_path / "both")[0]["test"]["origin"]) == {"mine", "theirs"}
