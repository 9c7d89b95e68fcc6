"""Aliases under kills and second writers, on versions without models: a version's score decides, higher is better."""

import random
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from common.errors import UserError
from common.paths import ROOT
from common.registry import champion as promotion
from common.registry.gate import CHALLENGER, CHAMPION, Verdict
from tests.support import stores


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with stores.in_force(tmp_path_factory.mktemp("promotion")) as uri:
        yield uri


@pytest.fixture
def client(store):
    return mlflow.MlflowClient()


@pytest.fixture
def name(client, request):
    name = request.node.name.replace("[", "-").replace("]", "")
    client.create_registered_model(name)
    return name


def make(client, name, *scores):
    """A version for each score; returns their numbers."""
    return [
        str(client.create_model_version(name, f"runs:/none/{score}", tags={"score": str(score)}).version)
        for score in scores
    ]


def judge_of(client, name):
    def score(number):
        return float(client.get_model_version(name, number).tags["score"])

    def judge(new, old):
        better = old is None or score(new) > score(old)
        return Verdict(CHAMPION if better else CHALLENGER, ("by its score",))

    return judge


def promote(client, name, number):
    whole = getattr(client, "client", client)
    return promotion.promote(client, name, number, judge_of(whole, name), lambda verdict, against: None)


def aliases(client, name):
    return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}


def test_champions_challengers_and_back_again(client, name):
    one, two, three, four, five = make(client, name, 1, 3, 2, 4, 5)
    assert promote(client, name, one).alias == CHAMPION
    assert promote(client, name, two).alias == CHAMPION
    settled = promote(client, name, three)
    assert (settled.alias, settled.incumbent) == (CHALLENGER, two)
    assert aliases(client, name) == {CHAMPION: two, CHALLENGER: three}
    assert promote(client, name, four).alias == promote(client, name, five).alias == CHAMPION

    assert promotion.rollback(client, name, dry_run=True) == (five, four)
    assert aliases(client, name)[CHAMPION] == five
    client.delete_model_version(name, four)
    # A deleted one is passed over, one that was never champion is none to go back to.
    assert promotion.rollback(client, name) == (five, two)
    assert promotion.rollback(client, name) == (two, one)
    with pytest.raises(UserError, match=f"no earlier champion than version {one} to roll back to"):
        promotion.rollback(client, name)
    assert aliases(client, name) == {CHAMPION: one, CHALLENGER: three}

    # After a rollback the order goes on from there.
    (six,) = make(client, name, 6)
    assert promote(client, name, six).incumbent == one
    assert promotion.rollback(client, name) == (six, one)
    with pytest.raises(UserError, match="has no champion"):
        promotion.rollback(client, next(iter(made_empty(client))))


def made_empty(client):
    client.create_registered_model("empty")
    yield "empty"


def test_an_alias_that_was_set_by_hand_is_right(client, name):
    one, two, three = make(client, name, 2, 1, 3)
    promote(client, name, one)
    promotion.by_alias(client, name, CHAMPION)
    client.set_registered_model_alias(name, CHAMPION, two)
    promote(client, name, three)
    assert promotion.rollback(client, name) == (three, two)
    assert promotion.SINCE in client.get_model_version(name, two).tags
    # Put back by hand, it is a champion like any other, and the next one goes back to it.
    client.set_registered_model_alias(name, CHAMPION, three)
    (four,) = make(client, name, 4)
    promote(client, name, four)
    assert promotion.rollback(client, name) == (four, three)


class Memory:
    """As much of a registry as promotion uses, without a database: every interleaving is tried in it."""

    def __init__(self):
        self.models = {}

    def create_registered_model(self, name):
        self.models[name] = ({}, {})

    def search_registered_models(self):
        return list(self.models)

    def create_model_version(self, name, source, tags):
        versions = self.models[name][0]
        versions[str(len(versions) + 1)] = dict(tags)
        return self.get_model_version(name, str(len(versions)))

    def get_model_version(self, name, number):
        return SimpleNamespace(version=number, tags=dict(self.models[name][0][number]))

    def search_model_versions(self, condition):
        name = condition.split("'")[1]
        return [self.get_model_version(name, number) for number in self.models[name][0]]

    def get_registered_model(self, name):
        return SimpleNamespace(aliases=dict(self.models[name][1]))

    def get_model_version_by_alias(self, name, alias):
        if alias not in self.models[name][1]:
            raise mlflow.MlflowException("none", INVALID_PARAMETER_VALUE)
        return self.get_model_version(name, self.models[name][1][alias])

    def set_registered_model_alias(self, name, alias, number):
        assert number in self.models[name][0]
        self.models[name][1][alias] = number

    def delete_registered_model_alias(self, name, alias):
        self.models[name][1].pop(alias, None)

    def set_model_version_tag(self, name, number, key, value):
        self.models[name][0][number][key] = value

    def delete_model_version_tag(self, name, number, key):
        self.models[name][0][number].pop(key, None)


class Killed(BaseException):
    pass


class Interrupted:
    """A client that does something before its n-th write, from 0."""

    def __init__(self, client, n, what):
        self.client, self.left, self.what = client, n, what

    def __getattr__(self, method):
        call = getattr(self.client, method)
        if not method.startswith(("set_", "delete_")):
            return call

        def write(*args):
            self.left -= 1
            if self.left == -1:
                self.what()
            return call(*args)

        return write


def killed():
    raise Killed


def writes_of(client, act):
    counter = Interrupted(client, 10**6, None)
    act(counter)
    return 10**6 - counter.left


def test_a_kill_before_any_write_leaves_one_champion_and_the_next_run_finishes():
    client, name = Memory(), "kill"

    def start():
        """Versions 1 and 2 were champion, 3 is a challenger that is as good as 4 by now."""
        own = f"{name}-{len(client.search_registered_models())}"
        client.create_registered_model(own)
        numbers = make(client, own, 1, 2, 2, 4)
        for number in numbers[:3]:
            promote(client, own, number)
        client.set_model_version_tag(own, "3", "score", "3")
        return own

    own = start()
    writes = writes_of(client, lambda counted: promote(counted, own, "3"))
    assert writes >= 4
    for n in range(writes):
        own = start()
        with pytest.raises(Killed):
            promote(Interrupted(client, n, killed), own, "3")
        held = aliases(client, own)
        assert held[CHAMPION] in ("2", "3") and held.get(CHALLENGER) != held[CHAMPION]
        promote(client, own, "3")
        assert aliases(client, own) == {CHAMPION: "3"}
        assert promotion.rollback(client, own) == ("3", "2")

    own = start()
    writes = writes_of(client, lambda counted: promotion.rollback(counted, own))
    for n in range(writes):
        own = start()
        with pytest.raises(Killed):
            promotion.rollback(Interrupted(client, n, killed), own)
        assert aliases(client, own)[CHAMPION] == "2"
        # Whoever was half rolled back is champion still, and one to go back to.
        promote(client, own, "4")
        assert promotion.rollback(client, own) == ("4", "2")
        assert promotion.rollback(client, own) == ("2", "1")


@pytest.mark.parametrize("first", ["3", "4"])
def test_wherever_a_second_writer_comes_between_both_come_to_the_same_champion(first):
    client, name = Memory(), "both"
    second = {"3": "4", "4": "3"}[first]

    def start():
        own = f"{name}-{len(client.search_registered_models())}"
        client.create_registered_model(own)
        for number in make(client, own, 1, 2, 3, 4)[:2]:
            promote(client, own, number)
        return own

    own = start()
    writes = writes_of(client, lambda counted: promote(counted, own, first))
    for n in range(writes):
        for m in [*range(1, writes + 1), 100]:
            own = start()

            def other(own=own, m=m):
                """The other one's promotion, killed before its m-th write, or whole."""
                try:
                    promote(Interrupted(client, m, killed), own, second)
                except Killed:
                    pass

            promote(Interrupted(client, n, other), own, first)
            assert aliases(client, own)[CHAMPION] in (first, second)
            if m == 100:
                assert aliases(client, own)[CHAMPION] == "4"
            promote(client, own, second)
            assert aliases(client, own)[CHAMPION] == "4"
            assert promotion.rollback(client, own)[0] == "4"
            assert aliases(client, own)[CHAMPION] in ("2", "3")


SCHEDULES = 120


class Turns:
    """A client whose every call waits for its turn; turns are drawn among those that are not done."""

    def __init__(self, client, who, drawn):
        self.client, self.who, self.drawn = client, who, drawn

    def __getattr__(self, method):
        call = getattr(self.client, method)

        def in_turn(*args):
            with self.drawn.changed:
                self.drawn.changed.wait_for(lambda: self.drawn.turn == self.who, timeout=20)
                try:
                    return call(*args)
                finally:
                    self.drawn.next()

        return in_turn


class Drawn:
    def __init__(self, players, seed):
        self.players, self.random = set(players), random.Random(seed)
        self.changed, self.turn = threading.Condition(), None
        with self.changed:
            self.next()

    def next(self):
        """Draw again; to be called with `changed` held."""
        self.turn = self.random.choice(sorted(self.players)) if self.players else None
        self.changed.notify_all()

    def leave(self, who):
        with self.changed:
            self.players.discard(who)
            self.next()


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_several_at_once_settle_in_whatever_order_their_calls_arrive_two_on_the_better(seed):
    client, name = Memory(), "race"
    client.create_registered_model(name)
    scores = random.Random(seed).sample(range(10), 4)
    old, *racers = make(client, name, -1, *scores[: 2 + seed % 3])
    if seed % 4:
        promote(client, name, old)
    drawn, errors = Drawn(racers, seed), []

    def race(number):
        try:
            promote(Turns(client, number, drawn), name, number)
        except Exception as error:
            errors.append(error)
        finally:
            drawn.leave(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    best = max(racers, key=lambda number: float(client.get_model_version(name, number).tags["score"]))
    held = aliases(client, name)
    assert held[CHAMPION] in racers and held.get(CHALLENGER) != held[CHAMPION]
    if len(racers) == 2:
        assert held[CHAMPION] == best
        assert promotion.SINCE in client.get_model_version(name, best).tags


WORKER = """
    import os, sys, time
    sys.path.insert(0, sys.argv[1])
    import mlflow
    from tests.common.registry.test_champion import Interrupted, make, promote
    name, mine, start = sys.argv[2], sys.argv[3].split(","), float(sys.argv[4])
    client = mlflow.MlflowClient()
    client.get_registered_model(name)
    time.sleep(max(0, start - time.time()))
    for score in mine:
        (number,) = make(client, name, score)
        promote(client, name, number)
    (number,) = make(client, name, 1000 + int(sys.argv[5]))
    promote(Interrupted(client, int(sys.argv[5]), lambda: os._exit(9)), name, number)
"""


@pytest.mark.long
def test_two_processes_at_once_and_their_death(client, name, store):
    scores = list(range(1, 17))
    start = time.time() + 8
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(WORKER),
                ROOT,
                name,
                ",".join(map(str, scores[i::2])),
                str(start),
                str(i + 1),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    nobody, seen = True, set()
    while any(worker.poll() is None for worker in workers):
        held = aliases(client, name)
        assert nobody or CHAMPION in held
        nobody = nobody and CHAMPION not in held
        assert held.get(CHALLENGER) != held.get(CHAMPION) or nobody
        seen.add(held.get(CHAMPION))
    # The first one's last version may be a challenger before it comes to be killed.
    for worker, ends in zip(workers, [(0, 9), (9,)], strict=True):
        assert worker.wait() in ends, worker.stderr.read()[-3000:]
    assert len(seen) > 3
    # One score is higher than all others: the best of all is champion, whether it came last or was killed on its way there.
    champion = aliases(client, name)[CHAMPION]
    assert client.get_model_version(name, champion).tags["score"] in ("16", "1001", "1002")
    for number in range(1, 19):
        if client.get_model_version(name, str(number)).tags["score"] in ("1001", "1002"):
            promote(client, name, str(number))
    final = aliases(client, name)[CHAMPION]
    assert client.get_model_version(name, final).tags["score"] == "1002"
    before, now = promotion.rollback(client, name)
    assert before == final and aliases(client, name)[CHAMPION] == now != before
