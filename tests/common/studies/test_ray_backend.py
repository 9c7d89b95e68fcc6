"""What Ray Tune gets: which rows come next, which points Optuna proposes, which trials are stopped. No cluster."""

from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
pytest.importorskip("optuna", reason="Optuna is not installed: pip install -r requirements-ray.txt")

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from common.errors import UserError
from common.studies.ray_backend import Hooks, Listener, Next, PerTechnique, Proposer, Search
from common.studies.ray_trial import EPOCH, SCORE
from common.studies.search import Asha, Space

RATE = Space("loguniform", (1e-4, 1e-1))
RANK = Space("choice", (4, 8))


def row(name, key="lora"):
    return SimpleNamespace(name=name, entry=key, technique=SimpleNamespace(key=key))


def search(spaces, left, known=(), refused=(), key="lora"):
    def propose(point):
        if point in refused:
            raise UserError("no")
        return row(str(point), key)

    return Search(spaces, left, list(known), 42, propose)


def trial(id_, key="lora", result=None, error=None):
    return SimpleNamespace(
        trial_id=id_, config={"technique": key}, last_result=result, get_error=lambda: error
    )


def hooks(sent, score=50.0):
    return Hooks(
        job=lambda row: {"command": row.name},
        started=lambda row, again: sent.append((row.name, "again" if again else "started")),
        ended=lambda row, code, why: sent.append((row.name, code, why)) or (score if code == 0 else None),
        stopped=lambda row, epoch, score: sent.append((row.name, "stopped", epoch, score)),
    )


def test_proposed_points_are_new_within_bounds_and_the_same_for_the_same_seed():
    first = Proposer(search({"lr": RATE, "r": RANK}, 8))
    names = [first.row(str(i)).name for i in range(8)]
    assert len(set(names)) == 8 and first.search.left == 0
    assert all(1e-4 <= point["lr"] <= 1e-1 and point["r"] in (4, 8) for point in first.points)
    again = Proposer(search({"lr": RATE, "r": RANK}, 8))
    assert [again.row(str(i)).name for i in range(8)] == names


def test_optuna_learns_where_good_points_are():
    """From the scores of an earlier start, and of this one."""
    known = [({"lr": 10 ** (-4 + 3 * i / 19)}, -abs(i - 15)) for i in range(20)]
    proposer = Proposer(search({"lr": RATE}, 15, known))
    for i in range(15):
        proposer.row(str(i))
        proposer.report(str(i), -abs(proposer.points[-1]["lr"] - 2.3e-2))
    best = known[15][0]["lr"]
    near = [point for point in proposer.points[-10:] if best / 4 < point["lr"] < best * 4]
    assert len(near) >= 7


def test_a_space_of_few_points_is_gone_through_and_then_left():
    proposer = Proposer(search({"r": RANK, "n": Space("int", (1, 3))}, 9, [({"r": 4, "n": 1}, 10.0)]))
    rows = [proposer.row(str(i)) for i in range(6)]
    assert rows[5] is None and len({row.name for row in rows[:5]}) == 5 and proposer.search.left == 0


def test_a_point_that_cannot_be_trained_is_reported_and_another_taken(capsys):
    proposer = Proposer(search({"r": RANK}, 2, refused=[{"r": 4}]))
    assert proposer.row("a").name == "{'r': 8}" and proposer.row("b") is None
    assert "Not tried: no" in capsys.readouterr().out


def test_rows_that_wait_come_first_then_the_searches_in_turn():
    sent = []
    searches = [search({"lr": RATE}, 2), search({"lr": RATE}, 2, key="ia3")]
    next_rows = Next([row("a"), row("b")], searches, hooks(sent))
    given = [next_rows.suggest(str(i)) for i in range(6)]
    assert [config["job"]["command"] for config in given[:2]] == ["a", "b"]
    assert [config["technique"] for config in given[2:]] == ["lora", "ia3", "lora", "ia3"]
    assert next_rows.suggest("6") == Searcher.FINISHED


def test_the_study_and_optuna_get_the_end_of_each_trial():
    sent = []
    next_rows = Next([], [search({"lr": RATE}, 4)], hooks(sent))
    listener = Listener(next_rows, hooks(sent))
    names = [next_rows.suggest(id_)["job"]["command"] for id_ in "abcd"]
    for id_ in "abcda":
        listener.on_trial_start(0, [], trial(id_))
    listener.on_trial_complete(0, [], trial("a", result={"code": 0, "why": "", SCORE: 1.0}))
    listener.on_trial_complete(0, [], trial("b", result={EPOCH: 1.0, SCORE: 7.0}))
    listener.on_trial_complete(0, [], trial("c", result={"code": 2, "why": "diverged"}))
    listener.on_trial_error(0, [], trial("d", error="Traceback\n  OutOfMemoryError: too much\n"))
    assert sent[4:8] == [
        (names[0], "again"),
        (names[0], 0, ""),
        (names[1], "stopped", 1.0, 7.0),
        (names[2], 2, "diverged"),
    ]
    assert sent[8][:2] == (names[3], None) and "died 4 times: OutOfMemoryError: too much" in sent[8][2]
    study = next_rows.proposers[0].optuna._ot_study
    assert [t.value for t in study.trials] == [50.0, 7.0, None, None]


def test_each_technique_is_compared_with_itself_alone():
    scheduler = PerTechnique(Asha(grace_period=1, reduction_factor=3))
    scores = [("lora", 80), ("lora", 20), ("ia3", 10), ("ia3", 11), ("ia3", 2), ("lora", 90)]
    decided = []
    for i, (key, score) in enumerate(scores):
        one = trial(str(i), key)
        scheduler.on_trial_add(None, one)
        decided.append(scheduler.on_trial_result(None, one, {EPOCH: 1.0, SCORE: score}))
        # Between rungs nothing is decided.
        after = scheduler.on_trial_result(None, one, {EPOCH: 2.0, SCORE: 0})
        assert after == TrialScheduler.CONTINUE
    stop, continues = TrialScheduler.STOP, TrialScheduler.CONTINUE
    assert decided == [continues, stop, continues, continues, stop, continues]
