"""Which of the models in memory goes when another needs the room, and what counts."""

from types import SimpleNamespace

import pytest
import torch

from common.serving.held_models import Held, Opened, Version, weights_in, weights_of

BASE = {1: 100}


def model(number, size=10):
    """An adapter of the base at address 1."""
    return Opened(object(), Version("1", f"m-{number}"), BASE | {number: size})


def test_the_one_that_was_not_asked_for_longest_goes_and_a_base_counts_once():
    held = Held(121)
    assert held.put("a", model(2)) == {} and held.put("b", model(3)) == {}
    assert held.total() == 120 and held.own() == {"a": 10, "b": 10}
    assert held.asked("a") is not None and held.asked("c") is None
    assert list(held.put("c", model(4))) == ["b"]
    assert list(held.models) == ["a", "c"] and held.total() == 120


def test_as_many_go_as_must():
    held = Held(130)
    for number in (2, 3, 4):
        held.put(str(number), model(number))
    assert list(held.put("large", model(5, 20))) == ["2", "3"]
    assert list(held.models) == ["4", "large"]


def test_what_does_not_fit_beside_what_is_always_there_changes_nothing():
    held = Held(120, lambda: {9: 15})
    assert held.put("a", model(2, 5)) == {} and held.total() == 120
    assert held.put("b", model(3, 6)) is None and list(held.models) == ["a"]
    # The model that the server was started with has the same base.
    held.beside = lambda: BASE | {9: 15}
    assert held.put("b", model(3, 5)).keys() == {"a"} and held.own() == {"b": 5}


def test_what_is_always_there_may_grow():
    held = Held(130, lambda: {9: 10})
    assert held.put("a", model(2)) == {} and held.put("b", model(3)) == {} and held.trimmed() == {}
    held.beside = lambda: {9: 15}
    assert held.trimmed().keys() == {"a"} and held.models.keys() == {"b"}


def test_a_promotion_is_no_request():
    held = Held(120)
    first = model(2)
    held.put("a", first), held.put("b", model(3))
    assert held.put("a", model(4)) == {"a": first}
    assert list(held.put("c", model(5))) == ["a"]


def test_without_a_bound_all_stay():
    held = Held(None)
    assert all(held.put(str(number), model(number)) == {} for number in range(2, 50))
    assert len(held.models) == 48


def test_weights_are_found_wherever_a_model_keeps_them():
    network, base = torch.nn.Linear(3, 2), torch.nn.Linear(4, 1, bias=False)
    network.register_buffer("places", torch.zeros(5))
    network.inner = base
    answerer = SimpleNamespace(model=network, shared=SimpleNamespace(model=base), text="text")
    answerer.itself = answerer
    side_by_side = SimpleNamespace(models=SimpleNamespace(answerers={"LoRA": answerer, "again": answerer}))
    assert sum(weights_in(side_by_side).values()) == 4 * (3 * 2 + 2 + 5 + 4)


@pytest.mark.parametrize("nothing", [torch.nn.Module(), torch.nn.ParameterList([torch.empty(0)])])
def test_what_another_runtime_computes_counts_by_its_files(nothing, tmp_path):
    (tmp_path / "base").mkdir()
    for file, size in (("model.onnx", 1000), ("base/config.json", 20)):
        (tmp_path / file).write_bytes(b"x" * size)
    context = SimpleNamespace(artifacts={"bundle": str(tmp_path)})
    loaded = SimpleNamespace(
        unwrap_python_model=lambda: SimpleNamespace(model=nothing),
        _model_impl=SimpleNamespace(context=context),
    )
    assert sum(weights_of(loaded).values()) == 1020
    # The network once for each number of threads.
    nothing.sessions = {1: "session", 2: "session"}
    assert sum(weights_of(loaded).values()) == 2020
