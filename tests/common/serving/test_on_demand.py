"""Who gets which of a server's further models: names, one opening for all who wait, room, failures, promotions."""

import asyncio
import gc
import threading
import time
import weakref
from types import SimpleNamespace

import mlflow
import prometheus_client
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from common.errors import UserError
from common.serving import on_demand
from common.serving.observed import Observed, Seen
from common.serving.on_demand import OnDemand, from_environment

MIB = 2**20
STARTED = SimpleNamespace(name="started", model=None)


class Model:
    """In the place of a loaded model of 10 MiB."""

    def __init__(self, uri, size=10):
        self.uri, self.size = uri, size


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(on_demand, "weights_of", lambda model: {id(model): model.size * MIB})


@pytest.fixture
def registry(monkeypatch):
    """Name → version that its alias champion names; `away`: the store does not answer."""
    found = SimpleNamespace(
        names={"shop-qa": "1", "team-a": "1", "team-b": "1"}, away=False, listed=0, without=["team-old"]
    )

    class Client:
        def get_model_version_by_alias(self, name, alias):
            if found.away:
                raise ConnectionError("the store is away\nTraceback")
            if name in found.without:
                raise MlflowException("no such alias", INVALID_PARAMETER_VALUE)
            if name not in found.names:
                raise MlflowException("no such model", RESOURCE_DOES_NOT_EXIST)
            version = found.names[name]
            return SimpleNamespace(version=version, source=f"models:/m-{name}-{version}")

        def search_registered_models(self, max_results, page_token):
            if found.away:
                raise ConnectionError("the store is away")
            found.listed += 1
            every = [(name, {"champion": v}) for name, v in sorted(found.names.items())]
            every += [(name, {}) for name in found.without]
            # In two pages.
            half = every[:2] if page_token is None else every[2:]
            page = [SimpleNamespace(name=name, aliases=aliases) for name, aliases in half]
            return type("Page", (list,), {"token": "next" if page_token is None else None})(page)

    monkeypatch.setattr(mlflow, "MlflowClient", Client)
    return found


@pytest.fixture
def further(registry):
    """Makes the further models of a server; they are opened by `opened`."""

    def make(most=None, opened=Model, allowed=(("shop-qa", "champion"), ("team-*", "champion"))):
        made = OnDemand(allowed, most and most * MIB, STARTED, Observed(prometheus_client), opened)
        # No thread of its own: the tests look when they want.
        made._watching = True
        return made

    return make


def ask(made, name, path="/invocations"):
    """(what was refused or None, what the request has)."""
    seen = Seen("id")
    headers = {} if name is None else {b"x-model": name.encode()}
    return asyncio.run(made.denied(seen, path, headers)), seen


def test_a_request_gets_the_model_that_it_names(further):
    made = further()
    for name in ("shop-qa", "team-a"):
        refused, seen = ask(made, name)
        assert refused is None and (seen.chosen.uri, seen.model, seen.version) == (
            f"models:/{name}/1",
            name,
            "1",
        )
    again = ask(made, "team-a")[1].chosen
    assert again is seen.chosen
    # The model that the server was started with answers to its own name, and without any.
    for name, path in ((None, "/invocations"), ("started", "/invocations"), ("nothing", "/metrics")):
        refused, seen = ask(made, name, path)
        assert refused is None and seen.chosen is None and seen.version == ""


def test_other_names_are_refused_with_those_that_there_are(further, registry):
    made = further(opened=pytest.fail)
    for name in ("other", "team-c", "team-old", "shop-qa/2", "é", ""):
        refused, seen = ask(made, name)
        assert refused.status == 404 and seen.chosen is None and seen.model == ""
        assert "shop-qa, team-a, team-b," in refused.reason and "team-old," not in refused.reason
    # However many ask, the store is asked for its names once in a while.
    assert registry.listed == 2
    del registry.names["shop-qa"]
    assert ask(made, "shop-qa")[0].reason == "The models' store has no shop-qa@champion."
    alone = further(allowed=())
    assert "leave X-Model out" in ask(alone, "shop-qa")[0].reason
    assert ask(alone, "started")[0] is None


def test_those_who_ask_for_one_that_is_opened_wait_for_it_and_others_do_not(further):
    begun, go, opened = threading.Event(), threading.Event(), []

    def slowly(uri):
        opened.append(uri)
        if "team-a" in uri:
            begun.set()
            assert go.wait(30)
        return Model(uri)

    made = further(opened=slowly)
    ask(made, "shop-qa")

    async def together():
        waiting = [
            asyncio.create_task(made.denied(seen, "/invocations", {b"x-model": b"team-a"})) for seen in seens
        ]
        await asyncio.to_thread(begun.wait, 30)
        # In memory, and not: neither waits.
        for name in (b"shop-qa", b"team-b"):
            assert (
                await asyncio.wait_for(made.denied(Seen("id"), "/invocations", {b"x-model": name}), 30)
                is None
            )
        assert not any(task.done() for task in waiting)
        go.set()
        return await asyncio.gather(*waiting)

    seens = [Seen(str(number)) for number in range(8)]
    assert asyncio.run(together()) == [None] * 8
    assert len({id(seen.chosen) for seen in seens}) == 1 and opened.count("models:/team-a/1") == 1


def test_one_that_takes_too_long_is_not_waited_for_but_opened_all_the_same(further, monkeypatch):
    monkeypatch.setattr(on_demand, "PATIENCE", 0.05)
    go = threading.Event()
    made = further(opened=lambda uri: go.wait(30) and Model(uri))
    refused, _ = ask(made, "team-a")
    assert refused.status == 503 and refused.headers == {"Retry-After": "5"}
    go.set()
    waited(lambda: "team-a" in made.held.models)
    assert ask(made, "team-a")[0] is None


def waited(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_has_to_go_is_freed_once_its_requests_have_ended(further):
    made = further(most=25)
    begun = ask(made, "shop-qa")[1]
    ask(made, "team-a"), ask(made, "team-b")
    assert list(made.held.models) == ["team-a", "team-b"]
    gone = weakref.ref(begun.chosen)
    made.look()
    assert gone() is not None
    del begun
    made.look()
    gc.collect()
    assert gone() is None and not made._leaving
    # Asked for again, it is opened again.
    assert ask(made, "shop-qa")[1].chosen.uri == "models:/shop-qa/1"
    assert list(made.held.models) == ["team-b", "shop-qa"]


def test_one_that_is_larger_than_the_bound_is_refused_and_not_opened_at_each_request(further):
    opened = []
    made = further(
        most=25, opened=lambda uri: opened.append(uri) or Model(uri, 30 if "team-b" in uri else 10)
    )
    ask(made, "team-a")
    for _ in range(2):
        refused, seen = ask(made, "team-b")
        assert refused.status == 507 and seen.chosen is None
        assert "team-b needs 30.0 MiB" in refused.reason and "SERVING_MODELS_MIB allows 25" in refused.reason
    assert opened == ["models:/team-a/1", "models:/team-b/1"] and list(made.held.models) == ["team-a"]


def test_a_version_that_does_not_open_is_reported_and_tried_again_later(
    further, registry, caplog, monkeypatch
):
    def broken(uri):
        opened.append(uri)
        raise UserError("/secret/folder: its file weights was changed")

    opened, made = [], further(opened=broken)
    for _ in range(2):
        refused, _ = ask(made, "team-a")
        assert refused.status == 503 and refused.headers == {"Retry-After": "60"}
        assert refused.reason == "Version 1 of team-a does not open; the server's log says why."
    assert len(opened) == 1 and caplog.text.count("its file weights was changed") == 1
    # Another version is tried at once.
    registry.names["team-a"] = "2"
    ask(made, "team-a")
    assert opened[1:] == ["models:/team-a/2"]
    monkeypatch.setattr(on_demand, "RETRY", -1.0)
    registry.names["team-a"] = "3"
    ask(made, "team-a"), ask(made, "team-a")
    assert opened[2:] == ["models:/team-a/3"] * 2


def test_a_store_that_is_away_concerns_those_alone_that_are_not_in_memory(further, registry, caplog):
    made = further()
    ask(made, "team-a")
    registry.away = True
    for _ in range(3):
        made.look()
    assert caplog.text.count("the store does not say its version") == 1
    assert ask(made, "team-a")[0] is None
    for name in ("shop-qa", "team-b"):
        refused, _ = ask(made, name)
        assert (
            refused.status == 503 and refused.headers == {"Retry-After": "5"} and "\n" not in refused.reason
        )
    assert ask(made, "other")[0].status == 404
    registry.away = False
    assert ask(made, "shop-qa")[0] is None


def test_aliases_are_followed(further, registry):
    def opened(uri):
        if uri == "models:/team-a/3":
            raise UserError("its file weights was changed")
        return Model(uri)

    made = further(opened=opened)
    begun = ask(made, "team-a")[1]
    registry.names["team-a"] = "2"
    made.look()
    assert begun.chosen.uri == "models:/team-a/1"
    seen = ask(made, "team-a")[1]
    assert (seen.chosen.uri, seen.version) == ("models:/team-a/2", "2")
    # What does not open leaves the one before in its place.
    registry.names["team-a"] = "3"
    made.look()
    assert ask(made, "team-a")[1].version == "2"
    # What nobody may ask for any more is freed.
    registry.without.append("team-a")
    made.look()
    assert "team-a" not in made.held.models and ask(made, "team-a")[0].status == 404


def test_it_is_counted(registry):
    def opened(uri):
        if uri == "models:/broken/1":
            raise UserError("no")
        return Model(uri, 12)

    observed, registry.names["broken"] = Observed(prometheus_client), "1"
    made = OnDemand([("*", "champion")], 25 * MIB, STARTED, observed, opened)
    made._watching = True
    for name in ("shop-qa", "team-a", "broken", "team-b", "shop-qa"):
        ask(made, name)
    lines = observed.text()[0].decode().splitlines()
    found = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
    assert found['suite_model_load_seconds_count{model="shop-qa"}'] == 2
    assert found['suite_model_load_seconds_sum{model="team-a"}'] > 0
    assert found['suite_model_load_failures_total{model="broken"}'] == 1
    assert [found[f'suite_model_evictions_total{{model="{name}"}}'] for name in ("shop-qa", "team-a")] == [
        1,
        1,
    ]
    assert [found[f'suite_model_bytes{{model="{name}"}}'] for name in ("shop-qa", "team-a")] == [12 * MIB, 0]
    assert found["suite_model_bytes_of_all"] == 24 * MIB


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", []),
        (" shop-qa@champion,  team-*@live\n", [("shop-qa", "champion"), ("team-*", "live")]),
    ],
)
def test_the_setting_is_read(text, allowed, monkeypatch):
    monkeypatch.setenv("SERVING_MODELS", text)
    monkeypatch.setenv("SERVING_MODELS_MIB", "1.5")
    made = from_environment(STARTED, Observed(None))
    assert made._allowed == allowed and made.held.most == 1.5 * MIB


@pytest.mark.parametrize("text", ["shop-qa", "models:/shop-qa@champion", "@champion", "a@b@c", "a@*", "a/1"])
def test_a_setting_that_names_no_alias_is_refused(text, monkeypatch):
    monkeypatch.setenv("SERVING_MODELS", f"b@champion {text}")
    with pytest.raises(UserError, match="SERVING_MODELS has .*; write NAME@ALIAS"):
        from_environment(STARTED, Observed(None))


@pytest.mark.parametrize("text", ["much", "0", "-3", "nan", "inf"])
def test_a_bound_that_is_no_number_is_refused(text, monkeypatch):
    monkeypatch.setenv("SERVING_MODELS_MIB", text)
    with pytest.raises(UserError, match="SERVING_MODELS_MIB is .*; it must be a number of MiB above 0"):
        from_environment(STARTED, Observed(None))
