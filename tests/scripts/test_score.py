"""`scripts/score.py` as its users call it."""

import json
import subprocess
import sys

import pytest

from common.paths import ROOT


def squad(version, *questions):
    """A SQuAD file's content; a question is (id, answers) and says `is_impossible` in v2.0."""
    qas = [
        {"id": id_, "question": "?", "answers": [{"text": text, "answer_start": 0} for text in golds]}
        | ({"is_impossible": not golds} if version == "v2.0" else {})
        for id_, golds in questions
    ]
    return {"version": version, "data": [{"title": "T", "paragraphs": [{"context": "c", "qas": qas}]}]}


V1 = squad("1.1", ("1", ["the cat", "Cat food"]), ("2", ["dog"]))
V2 = squad("v2.0", ("1", ["the cat"]), ("2", ["dog"]), ("3", []))


@pytest.fixture
def score(tmp_path):
    """Runs the script from another directory; arguments that are not strings become JSON files."""

    def run(*arguments):
        command = [sys.executable, str(ROOT / "scripts" / "score.py")]
        for k, argument in enumerate(arguments):
            if not isinstance(argument, str):
                path = tmp_path / f"{k}.json"
                content = argument if isinstance(argument, bytes) else json.dumps(argument).encode()
                path.write_bytes(content)
                argument = str(path)
            command.append(argument)
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_v1(score):
    done = score(V1, {"1": "A cat!", "2": "dog house"})
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"exact_match": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2)}


def test_v2_with_odds_and_threshold(score):
    predictions, odds = {"1": "cat", "2": "dog", "3": "x"}, {"1": 0.1, "2": 0.2, "3": 0.9}
    plain = json.loads(score(V2, predictions).stdout)
    assert plain["exact"] == plain["exact_match"] == pytest.approx(200 / 3)
    assert (plain["NoAns_f1"], plain["HasAns_total"], plain["total"]) == (0.0, 2, 3)
    assert "best_f1" not in plain
    done = json.loads(score(V2, predictions, "--na-prob-file", odds, "--na-prob-thresh", "0.5").stdout)
    assert done["exact"] == 100.0 and (done["best_f1"], done["best_f1_thresh"]) == (100.0, 0.2)


def test_the_version_shows_in_the_questions_too(score):
    without_version = {"data": V2["data"]}
    assert "NoAns_exact" in json.loads(score(without_version, {"1": "", "2": "", "3": ""}).stdout)
    by_version_alone = squad("2.0", ("1", ["x"]), ("2", []))
    assert "NoAns_exact" in json.loads(score(by_version_alone, {"1": "", "2": ""}).stdout)
    assert json.loads(score({"data": V1["data"]}, {"1": "cat", "2": "dog"}).stdout) == {
        "exact_match": 100.0,
        "f1": 100.0,
    }


def test_a_file_is_judged_as_prepare_data_judges_it(score):
    """No version and is_impossible false throughout is v1.1: a question without a prediction scores 0."""
    data = squad("1.1", ("1", ["cat"]), ("2", ["dog"]))
    for qa in data["data"][0]["paragraphs"][0]["qas"]:
        qa["is_impossible"] = False
    for version in (None, "2020-04-23"):
        assert json.loads(score(data | {"version": version}, {"1": "cat"}).stdout) == {
            "exact_match": 50.0,
            "f1": 50.0,
        }
    unanswered = squad("v2.0", ("1", ["cat"]))
    unanswered["data"][0]["paragraphs"][0]["qas"].append({"id": "2", "question": "?", "is_impossible": True})
    assert json.loads(score(unanswered, {"1": "cat", "2": ""}).stdout)["exact"] == 100.0


def test_differences_are_told_on_stderr_only(score):
    done = score(V1, {"1": "cat", "9": "x"})
    assert json.loads(done.stdout)["exact_match"] == 50.0
    assert "1 of 2 questions have no prediction and score 0: 2" in done.stderr
    assert "1 prediction is for another question and is ignored: 9" in done.stderr
    done = score(V2, {"1": "cat"})
    assert json.loads(done.stdout)["total"] == 1
    assert "2 of 3 questions have no prediction and are left out: 2, 3" in done.stderr


NO_ANSWERS = squad("1.1", ("1", ["x"]), ("q-empty", []))
LACKS_CONTEXT = {"version": "1.1", "data": [{"paragraphs": [{"qas": [{"answers": []}]}]}]}
NUMBER_AS_TEXT = squad("1.1", ("q-number", [5]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.json", {}), "nowhere.json: No such file"),
        ((".", {}), "is a folder"),
        ((b"<!DOCTYPE html><html>", {}), "is a web page"),
        ((b"", {}), "is empty"),
        ((b'{"data": "\xff"}', {}), "is not UTF-8"),
        (([], {}), "there is no question in it"),
        (({"data": 5}, {}), "is not SQuAD"),
        (({"version": "1.1"}, {}), "no 'data' at the top"),
        (({"data": []}, {}), "there is no question in it"),
        ((LACKS_CONTEXT, {}), "paragraph 0 has no 'context'"),
        ((NO_ANSWERS, {"1": "x"}), "'q-empty' has no answers"),
        ((NUMBER_AS_TEXT, {}), "id 'q-number', answer 0: 'text' must be text"),
        ((V1, []), "must hold one JSON object"),
        ((V1, {"1": ["x"]}), "prediction for '1' is no string"),
        ((V1, {"1": "x"}, "--na-prob-file", {"1": 0.5}), "belong to SQuAD v2.0"),
        ((V2, {"1": "x"}, "--na-prob-file", {"2": 0.5}), "no no-answer odds: 1"),
        ((V2, {"1": "x"}, "--na-prob-file", {"1": "0.5"}), "value for '1' is no number"),
        ((V2, {"1": "x"}, "--na-prob-file", b'{"1": NaN}'), "value for '1' is no number"),
        ((V2, {"9": "x"}), "No question has a prediction"),
        ((V2,), "PREDICTIONS.json"),
    ],
)
def test_bad_files_are_refused_with_a_reason(score, arguments, message):
    done = score(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_byte_order_marks_and_other_line_ends_are_read(score):
    content = b"\xef\xbb\xbf" + json.dumps(V1, indent=1).replace("\n", "\r\n").encode()
    assert json.loads(score(content, {"1": "cat", "2": "dog"}).stdout)["f1"] == 100.0


def test_starts_without_the_heavy_libraries():
    program = (
        "import runpy, sys; sys.argv = ['score.py', '--help']\n"
        "try: runpy.run_path(sys.orig_argv[-1], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'datasets', 'transformers', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(ROOT / "scripts" / "score.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "scripts")
    assert done.stdout.endswith("[]\n")


def test_the_rules_of_a_language(score):
    german = squad("1.1", ("1", ["die Donau"]), ("2", ["Haus"]))
    predictions = {"1": "der „Donau“", "2": "ein Haus"}
    done = score(german, predictions, "--language", "de")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"exact_match": 100.0, "f1": 100.0}
    assert json.loads(score(german, predictions).stdout)["exact_match"] == 0.0
    refused = score(german, predictions, "--language", "german")
    assert refused.returncode == 2 and "--language is 'german': give a code such as de" in refused.stderr
