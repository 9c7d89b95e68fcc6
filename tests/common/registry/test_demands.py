"""Promotion may ask for other data and for questions that must not be missed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.data import labelled_texts, prepared
from common.errors import UserError
from common.registry import checking, demands, register, versions
from common.registry.demands import AlsoOn, Demands, Judge
from common.registry.gate import Rules
from common.registry.head_to_head import Contender
from common.tasks.table import TASKS
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

QA, TEXTS, LABEL_SETS = (
    TASKS[name] for name in ("extractive-qa", "classification", "multi-label-classification")
)
QUESTION, TEXT, PAIR = ("question", "context"), ("text",), ("text", "text_pair")
NEW, OLD = (Contender(name, {}, {}, uri=name) for name in ("version 2", "version 1"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demands")
    trained.prepare_data(folder)
    return folder / "data"


@pytest.fixture
def answering(monkeypatch):
    """{URI: how many of the questions it answers right}; what is asked of each is counted."""
    right, asked = {}, []

    def ask(uri, records):
        asked.append(uri)
        if uri not in right:
            raise checking.Unloadable("it is gone")
        known = {e["context"] + e["question"]: e["answers"]["text"] for e in EXAMPLES}
        answers = []
        for i, record in enumerate(records):
            golds = known[record["context"] + record["question"]]
            answers.append({"answer": (golds[0] if golds else "") if i < right[uri] else "wrong words"})
        return {"answers": answers}

    monkeypatch.setattr(checking, "ask", ask)
    return right, asked


@pytest.mark.parametrize(
    ("text", "folder", "tolerance"), [("a/b:1.5", "a/b", 1.5), ("c:/data:0", "c:/data", 0.0)]
)
def test_also_on_names_a_folder_and_points(text, folder, tolerance):
    found = AlsoOn.parse(text)
    assert (str(found.folder), found.tolerance) == (folder, tolerance)


@pytest.mark.parametrize("text", ["data", "data:", ":1", "data:much", "data:-1", "data:nan", "data:inf"])
def test_what_names_none_is_refused(text):
    with pytest.raises(UserError, match="FOLDER:POINTS"):
        AlsoOn.parse(text)


@pytest.mark.parametrize("points", ["1", None, True, float("nan"), float("inf"), -0.5])
def test_points_are_a_number_however_they_are_given(points):
    with pytest.raises(UserError, match="also_on other: the points are .*; give a number, 0 or more"):
        AlsoOn(Path("other"), points)


def test_a_loss_on_other_data_holds_a_candidate_back(folder, answering):
    right, asked = answering
    judge = Judge(Demands((AlsoOn(folder, 1.0),)), QA)
    right |= {"version 1": len(EXAMPLES), "version 2": 0}
    failed, lines = judge.judged(NEW, OLD, Rules())
    assert len(failed) == 1 and "not shown to be within 1 points of the champion" in failed[0]
    assert lines[0].startswith("On data: F1 on its") and "at most 1 less" in lines[0]
    # Each model is asked once, however often it is judged.
    assert judge.judged(OLD, NEW, Rules())[0] == [] and sorted(asked) == ["version 1", "version 2"]


def test_an_equal_model_passes_within_any_tolerance(folder, answering):
    right, _ = answering
    right |= {"version 1": 5, "version 2": 5}
    for tolerance in (0.0, 1.0):
        assert Judge(Demands((AlsoOn(folder, tolerance),)), QA).judged(NEW, OLD, Rules())[0] == []


def test_one_question_of_eight_is_not_shown_to_be_within_a_point(folder, answering):
    right, _ = answering
    right |= {"version 1": 5, "version 2": 4}
    demanded = AlsoOn(folder, 1.0)
    assert Judge(Demands((demanded,)), QA).judged(NEW, OLD, Rules())[0]
    assert not Judge(Demands((replace(demanded, tolerance=99.0),)), QA).judged(NEW, OLD, Rules())[0]


def test_two_folders_of_one_name_are_two_demands(folder, answering, tmp_path, monkeypatch):
    other = tmp_path / "data"
    shutil.copytree(folder, other)
    right, asked = answering
    right |= {"version 1": 5, "version 2": 5}
    monkeypatch.chdir(other)
    for first, second in ((folder, other), (folder, Path("."))):
        asked.clear()
        judge = Judge(Demands((AlsoOn(first, 99.0), AlsoOn(second, 99.0)), folder.parent / "test.json"), QA)
        _, lines = judge.judged(NEW, OLD, Rules())
        assert [line.split(":")[0] for line in lines] == [
            f"On {first}",
            f"On {second}",
            "Must pass",
        ]
        # Each of them is asked about each, and about the file.
        assert sorted(asked) == ["version 1"] * 3 + ["version 2"] * 3
    assert (
        Judge(Demands((AlsoOn(Path("."), 1.0),)), QA).judged(NEW, OLD, Rules())[1][0].startswith("On data: ")
    )


def test_without_a_champion_other_data_is_not_asked(folder, answering):
    failed, lines = Judge(Demands((AlsoOn(folder, 1.0),)), QA).judged(NEW, None, Rules())
    assert not failed and "no champion" in lines[0] and not answering[1]


def test_a_champion_that_does_not_answer_stays(folder, answering):
    answering[0]["version 2"] = 8
    (failure,) = Judge(Demands((AlsoOn(folder, 1.0),)), QA).judged(NEW, OLD, Rules())[0]
    assert "version 1 does not answer it (it is gone)" in failure


@pytest.fixture
def golden(tmp_path):
    file = tmp_path / "golden.jsonl"
    rows = [
        {"question": e["question"], "context": e["context"], "answers": e["answers"]["text"]}
        for e in EXAMPLES
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return file


def test_every_question_of_the_file_must_be_right(golden, answering):
    right, _ = answering
    right |= {"version 1": 2, "version 2": len(EXAMPLES)}
    judge = Judge(Demands(must_pass=golden), QA)
    assert judge.judged(NEW, OLD, Rules()) == (
        [],
        [f"Must pass: {len(EXAMPLES)} of {len(EXAMPLES)} are right; the champion 2."],
    )
    ((failure,), _) = judge.judged(OLD, None, Rules())
    assert f"misses {len(EXAMPLES) - 2} of {len(EXAMPLES)} questions that it must pass" in failure
    assert repr(EXAMPLES[2]["question"][:80]) in failure and "more" in failure


def test_a_model_that_does_not_answer_the_file_is_not_blamed_for_wrong_answers(golden, answering):
    right, _ = answering
    judge = Judge(Demands(must_pass=golden), QA)
    ((failure,), (line,)) = judge.judged(NEW, None, Rules())
    assert failure == "it does not answer the questions that it must pass (it is gone)" and failure in line
    right["version 2"] = len(EXAMPLES)
    (failed, (line,)) = judge.judged(NEW, OLD, Rules())
    assert not failed and "the champion does not answer them (it is gone)" in line


def test_questions_are_scored_by_their_language_or_the_datas(tmp_path, monkeypatch):
    monkeypatch.setattr(
        checking, "ask", lambda uri, asked: {"answers": [{"answer": "der Herd"}] * len(asked)}
    )
    row = {"question": "Wo?", "context": "Der Herd ist warm.", "answers": "Herd"}
    for language, own, passed in (
        ("de", {}, True),
        (None, {}, False),
        (None, {"language": "de"}, True),
        ("de", {"language": "en"}, False),
    ):
        file = tmp_path / "golden.jsonl"
        file.write_text(json.dumps(row | own))
        failed, _ = Judge(Demands(must_pass=file), QA, language=language).judged(NEW, None, Rules())
        assert (not failed) == passed, (language, own)
        (tmp_path / "golden.json").write_text(
            json.dumps(
                {
                    "data": [
                        {
                            "paragraphs": [
                                {
                                    "context": row["context"],
                                    "qas": [
                                        {
                                            "id": "1",
                                            "question": "Wo?",
                                            "answers": [{"text": "Herd", "answer_start": 4}],
                                        }
                                        | own
                                    ],
                                }
                            ]
                        }
                    ]
                }
            )
        )
        judge = Judge(Demands(must_pass=tmp_path / "golden.json"), QA, language=language)
        assert (not judge.judged(NEW, None, Rules())[0]) == passed, (language, own)


def test_squad_json_and_labelled_texts_can_be_demanded(folder, tmp_path):
    rows = demands.read_must_pass(folder.parent / "test.json", QA, QUESTION)
    assert len(rows) == len(EXAMPLES) and rows[0]["answers"]["text"]
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "Good.", "label": "positive"}\n')
    (row,) = demands.read_must_pass(file, TEXTS, TEXT)
    assert (row["text"], row["label"]) == ("Good.", "positive")
    for label, right in (("positive", True), ("negative", False)):
        _, each = TEXTS.judged([{"label": label, "score": 0.9}], [row])
        assert TEXTS.right_of(each).tolist() == [right] and each["accuracy"].tolist() == [float(right)]


def test_labels_are_written_as_prepared_data_takes_them(tmp_path):
    file = tmp_path / "golden.csv"
    for content, asked in (("text,label\nx,a|b\ny,\n", LABEL_SETS), ("text,a,b\nx,1,1\ny,0,0\n", LABEL_SETS)):
        file.write_text(content)
        assert [row["label"] for row in demands.read_must_pass(file, asked, TEXT)] == [["a", "b"], []]
    file.write_text("text,label\nx,1.0\n")
    assert demands.read_must_pass(file, TEXTS, TEXT)[0]["label"] == "1"
    (tmp_path / "golden.jsonl").write_text('{"text": "x", "label": ["a"]}')
    with pytest.raises(UserError, match="golden.jsonl: line 1 has the label .'a'., which is no name of one"):
        demands.read_must_pass(tmp_path / "golden.jsonl", TEXTS, TEXT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("{", "line 1 is not JSON"),
        ('{"question": "a", "context": "b"}', "line 1 has no 'answers'"),
        ('\n{"question": 1, "context": "b", "answers": []}', "line 2: 'question' must be text, not int"),
        ('{"question": "a", "context": "b", "answers": [1]}', "line 1, answer 0 must be an object, not int"),
        ('{"question": " ", "context": "b", "answers": "x"}', "line 1: the question is empty"),
        (json.dumps({"question": "a" * 3000, "context": "b", "answers": "b"}), "line 1 is longer than"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(content, reason, tmp_path):
    file = tmp_path / "golden.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=f"^--must_pass {file}.*{reason}"):
        demands.read_must_pass(file, QA, QUESTION)


def test_a_folder_of_other_data_must_fit_the_task(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Judge(Demands((AlsoOn(tmp_path / "none", 1.0),)), QA)
    with pytest.raises(UserError, match="holds data of the kind 'qa'; classification needs 'text'"):
        Judge(Demands((AlsoOn(folder, 1.0),)), TEXTS)
    with pytest.raises(UserError, match="No such file"):
        Judge(Demands(must_pass=tmp_path / "none.jsonl"), QA)


def labelled(folder, multi_label=False, pairs=False):
    """A folder of prepared texts whose test part holds two labels, and a must-pass file of them."""
    folder.mkdir()
    for part, n in (("train", 40), ("test", 4)):
        rows = [
            {"text": f"{part} {i}", "label": ["a", "b"][: i % 3] if multi_label else "ab"[i % 2]}
            | ({"text_pair": f"beside {i}"} if pairs else {})
            for i in range(n)
        ]
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labelled_texts.prepare_files(
        folder / "train.jsonl", folder / "test.jsonl", folder / "data", multi_label=multi_label
    )
    return folder / "data", folder / "test.jsonl"


def labelling(monkeypatch, right):
    """Models that give the first `right` of their texts the right labels."""

    def ask(uri, asked):
        numbers = [int(record["text"].split()[1]) for record in asked]
        sets = [["a", "b"][: i % 3] if i < right else [] for i in numbers]
        others = [{"label": name, "score": 0.5} for name in "ab"]
        return {
            "answers": [
                {
                    "label": "ab"[(i + (i >= right)) % 2],
                    "score": 0.9,
                    "labels": given,
                    "scores": [0.9] * len(given),
                    "alternatives": others,
                }
                for i, given in zip(numbers, sets, strict=True)
            ]
        }

    monkeypatch.setattr(checking, "ask", ask)


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("task", [TEXTS, LABEL_SETS], ids=lambda task: task.name)
def test_texts_and_pairs_are_demanded_of_a_model_of_their_kind(task, pairs, tmp_path, monkeypatch):
    data, file = labelled(tmp_path / "made", task.multi_label, pairs)
    demanded, asked, other = (
        Demands((AlsoOn(data, 1.0),), file),
        PAIR if pairs else TEXT,
        TEXT if pairs else PAIR,
    )
    judge = Judge(demanded, task, asked)
    labelling(monkeypatch, right=4)
    failed, lines = judge.judged(NEW, OLD, Rules())
    assert not failed and lines[-1] == "Must pass: 4 of 4 are right; the champion 4."
    labelling(monkeypatch, right=1)
    ((failure,), _) = Judge(demanded, task, asked).judged(NEW, None, Rules())
    # Without labels the fourth text of the label sets is right again.
    assert f"misses {2 if task.multi_label else 3} of 4 texts" in failure
    held, taken = " and ".join(asked), " and ".join(other)
    for one in (Demands(demanded.also_on), Demands(must_pass=file)):
        with pytest.raises(UserError, match=f"has {held}; the model is asked {taken}"):
            Judge(one, task, other)
    wrong = TEXTS if task is LABEL_SETS else LABEL_SETS
    with pytest.raises(
        UserError, match=f"holds data of the kind '{task.data}'; {wrong.name} needs '{wrong.data}'"
    ):
        Judge(Demands(demanded.also_on), wrong, asked)


@pytest.mark.long
def test_demands_decide_who_is_champion(tmp_path_factory, tiny, monkeypatch):
    folder = tmp_path_factory.mktemp("gate")
    monkeypatch.setattr(QA, "registered", "demanding")
    with stores.in_force(folder), trained.checked_here():
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="one", test_f1=0.5, language="de")
        file = folder / "golden.jsonl"
        row = SimpleNamespace(**examples[0])
        file.write_text(
            json.dumps({"question": row.question, "context": row.context, "answers": "no model says this"})
        )
        import mlflow

        run = mlflow.get_run(run_id)
        assert Judge.of_run(Demands(must_pass=file), QA, run).must_pass[0]["language"] == "de"
        assert versions.asked(run) == QUESTION
        demanded = Demands((AlsoOn(folder / "data", 2.0),), file)
        done = register.register_best("one", demands=demanded)
        assert done.alias == "challenger" and any("must pass" in note for note in done.notes)
        tags = mlflow.MlflowClient().get_model_version("demanding", done.version).tags
        assert f"also_on={folder / 'data'}:2 must_pass={file}" in tags["gate_rules"]
        assert any(line.startswith("Must pass: 0 of 1") for line in done.figures)
        # Without the file it passes; a later one is held against it on the other data too.
        assert register.register_best("one").alias == "champion"
        trained.log_run(
            folder, tiny, record, examples, experiment="two", technique="ia3", seed=3, test_f1=1.0
        )
        done = register.register_best("two", demands=Demands((AlsoOn(folder / "data", 100.0),)))
        assert done.alias == "champion" and any(line.startswith("On data: F1") for line in done.figures)
