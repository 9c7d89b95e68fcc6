"""The rungs of a halving: who goes on, what a budget and bounds do, and that a second start decides the same.

Nothing is trained: a made-up world says how good and how slow each technique is.
"""

import json
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest

from common.errors import UserError
from common.studies import advice, advisor, declaration, outcomes
from common.studies.status import Entry
from tests.support.techniques import SCRIPTS, TECHNIQUES

QUALITY = {"lora": 60, "bitfit": 50, "ia3": 45, "head": 12, "loha": 40}
FILES = {key: SCRIPTS[0].parent / f"{key}.py" for key in TECHNIQUES}


class World:
    """Instead of `launch`: a row is finished once its study has run; its score rises with the data and is best at the default
    rate. `trained` holds the rows in order, `seconds` is what one takes for 100 examples."""

    def __init__(self, quality=QUALITY, seconds=10.0, failing=()):
        self.quality, self.seconds, self.failing = quality, seconds, failing
        self.trained, self.finished, self.failed = [], set(), set()

    def run(self, study, folder, scripts, backend, address, retry_failed, starter):
        for row in self.rows(study):
            if retry_failed and row.entry in self.failed - set(self.failing):
                self.finished.discard(self.content(row))
            if self.content(row) not in self.finished and row.entry not in self.failing:
                self.trained.append(row)
            self.finished.add(self.content(row))
        self.failed |= set(self.failing)
        return ""

    def survey(self, study, folder):
        entries = [self.entry(row) for row in self.rows(study)]
        for entry in entries:
            if entry.status == "finished":
                self.leave(folder, entry.row)
        status = SimpleNamespace(
            scores=lambda found: {e.row.name: e.metrics.get("best_validation_f1") for e in found},
            costs=lambda found: [
                outcomes.Cost(self.work(e.row), self.time(e.row), self.time(e.row))
                for e in found
                if e.status == "finished"
            ],
            work=self.work,
            folder=SimpleNamespace(row=lambda name: folder / name, path=folder),
        )
        return status, entries

    @staticmethod
    def rows(study):
        return declaration.expand(study, study.stages[0], lambda *_: 900)

    @staticmethod
    def content(row):
        return row.entry, row["learning_rate"], row["max_train_samples"]

    def score(self, row):
        default = TECHNIQUES[row.entry].rates.small.value
        off = 5 * abs(np.log10(row["learning_rate"] / default))
        return self.quality[row.entry] - 8 * np.log2(900 / row["max_train_samples"]) / 3 - off

    def entry(self, row):
        if self.content(row) not in self.finished:
            return Entry(row, "pending")
        if row.entry in self.failing or row.entry in self.failed and not self.was_trained(row):
            return Entry(row, "failed", reason="the loss is nan")
        metrics = {"best_validation_f1": self.score(row), "adapter_mib": len(row.entry) / 10}
        return Entry(row, "finished", "-".join(map(str, self.content(row))), metrics=metrics)

    def was_trained(self, row):
        return self.content(row) in map(self.content, self.trained)

    def leave(self, folder, row):
        rng = np.random.default_rng(crc32(repr(self.content(row)).encode()))
        scores = np.clip(self.score(row) / 100 + rng.normal(0, 0.1, 200), 0, 1)
        file = folder / row.name / "predictions" / "validation_scores.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({f"q{i}": {"f1": float(score)} for i, score in enumerate(scores)}))

    def time(self, row):
        return self.seconds * row["max_train_samples"] / 100

    def work(self, row):
        return outcomes.Work(row.entry, "bert", float(row["max_train_samples"]))


@pytest.fixture
def advise(monkeypatch, tmp_path, tiny):
    """(world, wishes) → what the advisor has found."""
    monkeypatch.setattr(advisor, "size", lambda *_: 900)

    def advise(
        world, measure=lambda run_id: (10.0, 80.0), named=True, data="as it is", retry_failed=False, **wishes
    ):
        monkeypatch.setattr(advisor.launch, "run", world.run)
        monkeypatch.setattr(advisor.launch, "survey", world.survey)
        techniques = tuple(wishes.pop("techniques", world.quality))
        asked = advisor.Wishes("data", techniques, named, model_checkpoint=tiny("bert"), **wishes)
        made = advisor.Advisor(asked, TECHNIQUES, FILES, tmp_path, measure, data, retry_failed=retry_failed)
        return made.run()

    return advise


def counts(world):
    """Rows that were trained, by the number of examples."""
    sizes = [row["max_train_samples"] for row in world.trained]
    return {size: sizes.count(size) for size in sorted(set(sizes))}


def test_the_best_of_each_rung_go_on_at_their_best_rate(advise):
    world = World()
    found = advise(world)
    assert counts(world) == {100: 15, 300: 2, 900: 2}
    later = [(row.entry, row["learning_rate"]) for row in world.trained[15:17]]
    assert later == [(key, TECHNIQUES[key].rates.small.value) for key in ("lora", "bitfit")]
    assert found.made.take == "LoRA" and found.made.verdict == "decided"
    assert {each.other: each.examples for each in found.made.comparisons} == {
        "BitFit": 900, "IA3": 100, "LoHa": 100, "Head alone": 100,
    }  # fmt: skip
    assert found.seconds == pytest.approx([150, 60, 180])
    assert (
        found.setting.command.endswith("--learning_rate 0.001")
        and "lora.py --data_dir data" in found.setting.command
    )
    # Only those that may be taken are asked.
    assert found.costs["LoRA"].latency_ms == 10.0 and found.costs["IA3"].latency_ms is None


def test_a_second_start_trains_and_measures_nothing(advise):
    world = World()
    first = advise(world)
    trained = len(world.trained)

    def fail(run_id):
        raise AssertionError("measured again")

    second = advise(world, fail)
    assert len(world.trained) == trained and second.made == first.made


def test_who_goes_on_is_decided_again_for_other_data_in_the_same_folder(advise):
    first = advise(World())
    other = advise(World(QUALITY | {"ia3": 70, "lora": 20}), data="prepared again")
    assert (first.made.take, other.made.take) == ("LoRA", "IA3")
    assert first.folder != other.folder


def test_a_technique_that_failed_goes_on_once_its_runs_are_trained_again(advise):
    world = World(failing=("lora",))
    assert "LoRA" in advise(world).setting.excluded
    world.failing = ()
    assert "LoRA" in advise(world).setting.excluded
    found = advise(world, retry_failed=True)
    assert found.made.take == "LoRA" and not found.setting.excluded
    assert [len(rung) for rung in found.made.rungs] == [5, 2, 2]


def test_bounds_exclude_with_what_was_measured(advise):
    slow = {"lora": (50.0, 80.0)}
    found = advise(
        World(), lambda run: slow.get(run.split("-")[0], (10.0, 90.0)), max_latency_ms=20, max_size_mb=0.5
    )
    assert found.made.take == "IA3"
    assert found.setting.excluded == {
        "LoRA": "one request takes 50.0 ms, the bound is 20 ms",
        "BitFit": "stores 0.6 MiB (90 MiB as one model), the bound is 0.5 MiB",
    }
    with pytest.raises(UserError, match="No technique is within the bounds: LoRA: one request takes"):
        advise(World(), lambda run: (50.0, 80.0), max_latency_ms=20)
    with pytest.raises(UserError, match="one request does not load"):
        advise(World(), lambda run: (None, None), max_latency_ms=19)


def test_a_technique_that_fails_is_excluded_with_its_reason(advise):
    found = advise(World(failing=("lora",)))
    assert found.made.take == "BitFit" and found.setting.excluded == {
        "LoRA": "its runs failed: the loss is nan"
    }
    with pytest.raises(
        UserError, match="Every run failed .--retry_failed runs .*: LoRA: its runs failed: the loss is nan"
    ):
        advise(World({"lora": 60}, failing=("lora",)))


def test_one_technique_still_has_its_rates_and_its_curve(advise):
    world = World({"lora": 60})
    found = advise(world)
    assert counts(world) == {100: 3, 300: 1, 900: 1} and found.made.verdict == "alone"
    assert found.made.overall["slope"] == pytest.approx(8 / 3, abs=1.5)


@pytest.mark.parametrize(
    ("minutes", "trained"),
    [
        # 10 s a row of the first rung: 150 s of three rates each, 50 s of one.
        (10, {100: 15, 300: 2, 900: 2}),
        (6.5, {100: 15, 300: 2, 900: 2}),
        (5, {100: 15, 300: 2, 450: 2}),
        (4, {100: 5, 300: 2, 650: 2}),
        (1.5, {100: 5, 200: 2}),
        (1, {100: 5}),
    ],
)
def test_a_budget_is_kept(advise, minutes, trained):
    world = World()
    found = advise(world, budget_minutes=minutes)
    assert counts(world) == trained
    assert sum(map(world.time, world.trained)) <= 60 * minutes
    noted = [note for note in found.setting.notes if "The budget of" in note]
    assert len(noted) == (len(trained) < 3)


def test_a_budget_that_does_not_even_allow_the_first_rung_is_refused(advise):
    with pytest.raises(
        UserError,
        match="training 5 techniques on 100 examples each takes about 0:40 on this machine; raise it",
    ):
        advise(World(), budget_minutes=0.6)


def test_a_small_budget_tries_those_that_are_likely_to_do_well(advise):
    """One run of 10 s shows how long each takes; half of the 38 s that are left are for others of the first rung."""
    world = World(dict(reversed(QUALITY.items())))
    found = advise(world, named=False, budget_minutes=0.8)
    assert {row.entry for row in world.trained} == {"lora", "loha"}
    left_out = {"BitFit", "IA3", "Head alone"}
    assert found.setting.excluded.keys() == left_out
    assert "0.8 minutes; behind the others" in found.setting.excluded["IA3"]
    trained = len(world.trained)
    again = advise(world, named=False, budget_minutes=0.8)
    assert len(world.trained) == trained and again.setting.excluded == found.setting.excluded


def test_the_budget_decides_once(advise):
    world = World()
    advise(world, budget_minutes=5)
    trained = len(world.trained)
    world.seconds = 100.0
    advise(world, budget_minutes=5)
    assert len(world.trained) == trained


def test_a_technique_that_does_not_fit_the_model_is_left_out_or_refused(advise, tiny):
    world = World(QUALITY | {"prefix-tuning": 30})
    model = tiny("deberta-v2")
    with pytest.raises(UserError, match="--techniques prefix-tuning does not work with deberta-v2"):
        advise_on(advise, world, model, named=True)
    found = advise_on(advise, world, model, named=False)
    assert "Prefix tuning" in found.setting.excluded and found.made.take == "LoRA"


def advise_on(advise, world, model, named):
    original = advisor.Wishes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            advisor, "Wishes", lambda *args, **kw: original(*args, **kw | {"model_checkpoint": model})
        )
        return advise(world, named=named)


def test_a_best_rate_at_the_edge_is_said(advise, monkeypatch):
    world = World({"lora": 60, "ia3": 40})
    monkeypatch.setattr(
        World, "score", lambda self, row: self.quality[row.entry] + 100 * row["learning_rate"]
    )
    (note,) = advise(world).setting.notes
    assert (
        note
        == "The learning rate 0.003 is the highest that was tried for LoRA: a higher one may be better still."
    )


def test_too_costly_says_what_was_measured():
    cost = advice.Cost(30.0, 2.5, 86.0)
    assert advice.too_costly(cost, None, None) == "" == advice.too_costly(cost, 30, 2.5)
    assert advice.too_costly(cost, 29, 2) == (
        "one request takes 30.0 ms, the bound is 29 ms; stores 2.5 MiB (86 MiB as one model), the bound is 2 MiB"
    )
