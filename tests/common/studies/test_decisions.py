"""Seeds that a study leaves out: which rows are due, what the report says of them, and what the file may ask for."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from common.reports import study_stopping
from common.reports.configurations import best, configurations, tidy
from common.studies import decisions, declaration, results, runner
from common.studies.outcomes import best_points
from common.studies.status import Entry, Status
from tests.support.declarations import SMALL, parse, size

STUDY = SMALL | {
    "techniques": {"lora": {"grid": {"learning_rate": [0.001, 0.1]}}, "ia3": None, "bitfit": None},
    "seeds": [1, 2, 3],
    "stop": {"when": "decided", "smallest_difference": 1.0},
}
LORA, HIGH, IA3, BITFIT = "lora-learning_rate=0.001", "lora-learning_rate=0.1", "ia3", "bitfit"


class Made:
    """A study whose rows score what `scores` says: (candidate, seed) → F1 in percent, NaN for a run that fails."""

    def __init__(self, content, scores, folder):
        self.study = parse(content)
        (self.stage,) = self.study.stages
        self.scores, self.trained = scores, []
        self.rows = declaration.expand(self.study, self.stage, size)
        self.task = SimpleNamespace(metric="f1", metrics=("f1",))
        self.folder = SimpleNamespace(row=lambda name: folder / name, path=folder)

    def seconds(self, row):
        return 60.0

    def plan(self, row):
        return SimpleNamespace(technique=row.technique, args=row.args)

    def look(self, row):
        if row.name not in self.trained:
            return Entry(row, "pending")
        score = self.scores[decisions.candidate_of(row), row.args.seed]
        if score != score:
            return Entry(row, "failed", reason="it diverged")
        self._validate(row, score)
        return Entry(row, "finished", run_id=row.name, metrics={"best_validation_f1": score})

    def _validate(self, row, score):
        """Of 100 questions, as many are right as there are points; more are right where the score is higher."""
        folder = self.folder.row(row.name) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        each = {str(i): {"f1": float(i < score)} for i in range(100)}
        (folder / "validation_scores.json").write_text(json.dumps(each))

    def entries(self):
        return decisions.settled(self.study, self.stage, [self.look(row) for row in self.rows], "f1")

    def run(self):
        """Train what is due until nothing is; the rows in the order in which they were trained."""
        while due := decisions.due(self.study, self.stage, self.entries(), "f1"):
            self.trained += [row.name for row in self.rows if row.name in due]
        return self.trained


SCORES = {
    (LORA, 1): 62.0, (LORA, 2): 61.0, (LORA, 3): 60.0, (HIGH, 1): 2.0, (IA3, 1): 61.0, (IA3, 2): 60.5, (IA3, 3): 62.0,
    (BITFIT, 1): 40.0,
}  # fmt: skip


def test_seeds_are_added_only_where_the_decision_is_open(tmp_path):
    """What is 20 points behind after one seed gets no second; the two that are close get all."""
    made = Made(STUDY, SCORES, tmp_path)
    first = [f"{name}-seed=1" for name in (LORA, HIGH, IA3, BITFIT)]
    rest = [f"{name}-seed={seed}" for seed in (2, 3) for name in (LORA, IA3)]
    assert made.run() == first + rest
    left_out = [entry for entry in made.entries() if entry.status == "stopped"]
    assert [entry.row.name for entry in left_out] == [f"{n}-seed={s}" for n in (HIGH, BITFIT) for s in (2, 3)]
    assert left_out[2].reason.startswith(
        f"decided after 1 seed: validation F1 22.0 behind {LORA}; with all 3 seeds "
    )
    # A second start finds the same from what was logged, whatever the order in which it was.
    made.trained.reverse()
    assert made.run() == made.trained and len(made.trained) == 8


def test_a_stage_stops_only_if_it_is_told_to_and_has_seeds_to_leave_out():
    content = {key: value for key, value in STUDY.items() if key != "stop"}
    assert parse(content).stages[0].stop is None
    assert parse(STUDY | {"stop": {"when": "never"}}).stages[0].stop is None
    stages = {"sweep": {"seeds": [1]}, "full": {"best_of": "sweep"}, "rest": {"stop": {"when": "never"}}}
    assert [bool(stage.stop) for stage in parse(STUDY | {"stages": stages}).stages] == [False, True, False]
    # One seed is enough for a smoke.
    assert parse(STUDY | {"smoke": {"seeds": [1]}}, smoke=True).stages[0].stop is None


def test_candidates_of_a_sweep_are_compared_within_their_technique_and_at_one_size(tmp_path):
    """`best_of` takes the best point of each technique; the amount of data is not tuned."""
    content = STUDY | {"techniques": {"lora": STUDY["techniques"]["lora"], "ia3": None}}
    study = parse(content | {"stages": {"sweep": {}, "full": {"best_of": "sweep"}}})
    rows = declaration.expand(study, study.stages[0], size)
    points = {"sweep-lora-learning_rate=0.001": 60.0, "sweep-lora-learning_rate=0.1": 90.0, "sweep-ia3": 5.0}

    def look(row):
        score = points[decisions.candidate_of(row)]
        known = row.args.seed == 1
        return (
            Entry(row, "finished", metrics={"best_validation_f1": score}) if known else Entry(row, "pending")
        )

    entries = decisions.settled(study, study.stages[0], [look(row) for row in rows], "f1")
    assert {decisions.candidate_of(entry.row) for entry in entries if entry.decision} == {
        "sweep-lora-learning_rate=0.001"
    }
    # Nobody competes with the others' only candidates: nothing is left to decide.
    assert not decisions.due(study, study.stages[0], entries, "f1")
    status = SimpleNamespace(task=SimpleNamespace(metric="f1"))
    assert best_points(rows, Status.scores(status, entries))["lora"] == {"learning_rate": 0.1}
    sizes = parse(SMALL | {"seeds": [1, 2], "stop": {}, "grid": {"max_train_samples": [10, 500]}})
    of_size = [Entry(row, "pending") for row in declaration.expand(sizes, sizes.stages[0], size)]
    found = [
        Entry(e.row, "finished", metrics={"best_validation_f1": float(e.row.point["max_train_samples"] / 10)})
        if e.row.args.seed == 1
        else e
        for e in of_size
    ]
    assert len(decisions.due(sizes, sizes.stages[0], found, "f1")) == 4


def test_a_candidate_without_a_competitor_trains_all_seeds(tmp_path):
    content = STUDY | {"techniques": {"lora": None}}
    made = Made(content, {("lora", 1): 60.0, ("lora", 2): float("nan"), ("lora", 3): 61.0}, tmp_path)
    assert len(made.run()) == 3
    (row,) = decisions.record(made, made.entries())[0]["candidates"]
    assert row["leads"] and (row["done"], row["left_out"]) == (2, 0)


def test_another_rule_makes_another_report():
    rows = [
        Entry(row, "finished", run_id="0")
        for row in declaration.expand(parse(STUDY), parse(STUDY).stages[0], size)
    ]
    reported = [
        runner.content_of_report(study, rows)
        for study in (
            parse(STUDY),
            declaration.with_smallest_difference(parse(STUDY), 5.0),
            parse(STUDY | {"stop": None}),
        )
    ]
    assert reported[0] not in reported[1:] and reported[1] != reported[2]
    assert reported[0] == runner.content_of_report(parse(STUDY), rows)


def test_a_decided_candidate_is_not_the_best_whatever_its_only_seed_scored(tmp_path):
    """The leader falls with its later seeds; what was decided before keeps its one high score."""
    scores = {
        (LORA, 1): 62.0,
        (LORA, 2): 30.0,
        (LORA, 3): 31.0,
        (HIGH, 1): 2.0,
        (IA3, 1): 61.9,
        (IA3, 2): 29.0,
    }
    scores |= {(IA3, 3): 30.0, (BITFIT, 1): 50.0}
    made = Made(STUDY, scores, tmp_path)
    made.run()
    entries = made.entries()
    assert {decisions.candidate_of(entry.row) for entry in entries if entry.decision} == {HIGH, BITFIT}
    frame = results.table(made, entries)
    about = {"metric": "f1", "axes": ["learning_rate"]}
    table = configurations(about, tidy(about, frame), {})
    assert table.loc[best(table), "label"] == "LoRA, lr 1e-3"
    assert table.loc[table["validation"].idxmax(), "label"] == "BitFit"


def test_the_report_names_each_decision_its_bound_its_error_and_what_it_saved(tmp_path):
    made = Made(STUDY, SCORES | {(HIGH, 1): float("nan")}, tmp_path)
    made.run()
    (stage,) = decisions.record(made, made.entries())
    assert (stage["planned"], stage["left_out"]) == (12, 4)
    # A run that failed says nothing of how long the others would have taken.
    assert (stage["saved_seconds"], stage["spent_seconds"]) == (120, 7 * 60)
    rows = {row["candidate"]: row for row in stage["candidates"]}
    assert rows[LORA]["leads"] is False or rows[IA3]["leads"] is False
    bitfit = rows[BITFIT]
    assert (bitfit["done"], bitfit["seeds"], bitfit["leader"], bitfit["difference"]) == (1, 1, LORA, -22)
    assert bitfit["low"] < -22 < bitfit["high"] < 0 and bitfit["bound"] < 1
    assert bitfit["error"] == pytest.approx(0.05 * (3 / 4) / 3)
    assert json.loads(json.dumps(stage, allow_nan=False)) == stage
    ((heading, (text, table, _)),) = study_stopping.sections({"metric": "f1", "decided": [stage]})
    assert heading == "What was decided early"
    assert "4 of 12 runs were left out, which saved 2:00 of 9:00 (22%)" in text.text
    assert "at most 5%" in text.text and "by 1 points of validation F1" in text.text
    cells = {row[0]: row for row in table.rows}
    assert cells[BITFIT][1:4] == ["1 of 3", "1 seed", f"-22.0 ({LORA})"] and cells[BITFIT][-1] == "2:00"
    assert cells[HIGH][2] == "no score" and "leader" in (cells[LORA][2], cells[IA3][2])
    assert study_stopping.sections({"metric": "f1"}) == []


def test_the_least_and_the_most_rows_are_named(tmp_path):
    made = Made(STUDY, SCORES, tmp_path)
    assert decisions.extent(made, made.entries()).startswith("`stop`: at least 4 and at most 12 of 12 rows")
    made.trained += [f"{name}-seed=1" for name in (LORA, HIGH, IA3, BITFIT)]
    assert decisions.extent(made, made.entries()).startswith("`stop`: at least 6 and at most 8 of 12 rows")
    without = SimpleNamespace(study=parse(SMALL))
    assert decisions.extent(without, []) == ""


def test_the_smallest_difference_can_be_given_and_is_refused_where_nothing_stops():
    study = declaration.with_smallest_difference(parse(STUDY), 2.5)
    assert study.stages[0].stop.smallest_difference == 2.5 and study.stages[0].stop.when == "decided"
    with pytest.raises(UserError, match="s.yaml needs `stop: .when: decided.` and two seeds"):
        declaration.with_smallest_difference(parse(SMALL), 1.0)
    for points in (-1.0, np.inf, np.nan):
        with pytest.raises(UserError, match="must be a number of points from 0"):
            declaration.with_smallest_difference(parse(STUDY), points)
