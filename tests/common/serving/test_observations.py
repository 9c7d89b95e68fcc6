"""What a server notes of its answers: no text, whole lines from several workers, and no more than its folder may hold."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from common.errors import UserError
from common.paths import ROOT
from common.serving import observations
from common.serving.observations import Observations, measures, observation, result
from common.serving.observed import Seen

RECORD = {"question": "Who hides?", "context": "Der Fuchs versteckt sich."}
ANSWER = {"answer": "Der Fuchs", "score": 0.87654, "start": 0, "end": 9}


def lines(folder):
    return [
        json.loads(line) for file in sorted(folder.rglob("*.jsonl")) for line in file.open(encoding="utf-8")
    ]


def written(given, *seen):
    for each in seen:
        given.put(each)
    given.finish(30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who hides?", (10, "LATIN")),
        ("Кто прячется в doc 7?", (21, "CYRILLIC")),
        ("谁藏起来了?", (6, "CJK")),
        ("من يختبئ؟", (9, "ARABIC")),
        ("1 + 2 = ?", (9, "none")),
        ("", (0, "none")),
    ],
)
def test_the_length_and_the_script_of_a_text(text, expected):
    assert measures(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ANSWER, {"outcome": "answered", "score": 0.8765}),
        ({"answer": "", "score": 0.4}, {"outcome": "no_answer", "score": 0.4}),
        ({"label": "", "score": 0.4, "abstained": True}, {"outcome": "abstained", "score": 0.4}),
        ({"label": "good", "score": float("nan")}, {"outcome": "answered", "label": "good"}),
        ({"labels": ["a", "b"], "scores": [1, 1]}, {"outcome": "answered", "labels": 2}),
    ],
)
def test_what_became_of_a_row(answer, expected):
    assert result(answer) == expected


def test_a_row_is_noted_without_its_text(tmp_path):
    given, twice = (
        Observations(tmp_path / "new" / "folder"),
        Seen("id", "3", 2, records=[RECORD] * 2, answers=[ANSWER] * 2),
    )
    written(given, twice)
    first, second = lines(tmp_path)
    assert list(first) == ["time", "version", "texts", "outcome", "score"] and first["version"] == "3"
    assert {name: each[:2] for name, each in first["texts"].items()} == {
        "question": [10, "LATIN"],
        "context": [25, "LATIN"],
    }
    (file,) = tmp_path.rglob("*.jsonl")
    assert file.name == f"observations-{datetime.now(UTC):%Y-%m-%d}-0000.jsonl" or file.name < first["time"]
    assert not any(word in file.read_text() for word in ("Fuchs", "hides", "Who"))
    # The same text is known again in this process, and in no other.
    assert first["texts"] == second["texts"]
    code = f"from common.serving.observations import observation; print(observation({RECORD!r}, {ANSWER!r})['texts'])"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    mark = observation(RECORD, ANSWER)["texts"]["question"][2]
    assert mark == first["texts"]["question"][2] and "LATIN" in other.stdout and mark not in other.stdout


def test_rows_with_several_answers_are_left_out(tmp_path):
    written(
        Observations(tmp_path), Seen("id", "3", records=[RECORD], answers=[{"answers": [ANSWER, ANSWER]}])
    )
    assert lines(tmp_path) == []


WORKER = """
import sys
from pathlib import Path
from common.serving.observations import Observations
from common.serving.observed import Seen
given = Observations(Path(sys.argv[1]))
for i in range(50):
    seen = Seen("id", sys.argv[2], records=[{"text": "a"}] * 40, answers=[{"label": "x" * 100, "score": 0.5}] * 40)
    given.put(seen)
given.finish(60)
"""


def test_workers_write_whole_lines_into_one_file(tmp_path):
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), name], cwd=ROOT) for name in ("1", "2")
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    found = lines(tmp_path)
    assert {name: sum(line["version"] == name for line in found) for name in ("1", "2")} == {
        "1": 2000,
        "2": 2000,
    }


def test_a_folder_keeps_to_its_limit_and_the_oldest_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(observations, "PART", 1000)
    old = tmp_path / "observations-2020-01-01-0000.jsonl"
    old.write_text("x" * 900)
    other = tmp_path / "notes.txt"
    other.write_text("y" * 5000)
    given = Observations(tmp_path, 0.004)
    seen = Seen("id", "3", records=[RECORD], answers=[ANSWER])
    for _ in range(100):
        written(given, seen)
        assert sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) <= 4000 + 300
    files = sorted(file.name for file in tmp_path.glob("*.jsonl"))
    assert (
        not old.exists() and other.exists() and 2 <= len(files) <= 4 and not files[0].endswith("-0000.jsonl")
    )
    # Another day begins with a file of its own.
    given._write(datetime(2999, 1, 1, tzinfo=UTC), "3", [RECORD], [ANSWER])
    assert (tmp_path / "observations-2999-01-01-0000.jsonl").read_text().count("\n") == 1


def test_a_disk_that_fails_breaks_nothing(tmp_path, monkeypatch, caplog):
    given = Observations(tmp_path)

    def full(now):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(given, "_place", full)
    written(given, Seen("id", "3", records=[RECORD], answers=[ANSWER]))
    assert "Observations: some are left out: OSError" in caplog.text


def test_wrong_settings_are_refused(tmp_path):
    assert observations.observations({}) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="SERVING_OBSERVATIONS .*file.* cannot be written"):
        observations.observations({"SERVING_OBSERVATIONS": str(tmp_path / "file")})
    for megabytes in ("few", "31", "-5", "1.5"):
        with pytest.raises(UserError, match="SERVING_OBSERVATIONS_MB is .*, 32 or more"):
            observations.observations(
                {"SERVING_OBSERVATIONS": str(tmp_path), "SERVING_OBSERVATIONS_MB": megabytes}
            )
