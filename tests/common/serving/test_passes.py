"""Calls that wait are computed in one pass, and everyone gets what they get alone."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from transformers.modeling_outputs import ModelOutput

from common.models import bundles
from common.serving import classification, extractive_qa, multi_label, passes, runtime
from common.serving.observed import Observed
from common.serving.requests import Refusal
from tests.support import trained
from tests.support.questions import EXAMPLES

SERVER = ["/usr/bin/uvicorn", "--port", "5001"]


class Held(torch.nn.Module):
    """Echoes its inputs; the first call waits until it may go on. It fails on rows that hold a 13."""

    def __init__(self):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.empty(0))
        self.config, self.seen = None, []
        self.begun, self.go = threading.Event(), threading.Event()

    def forward(self, input_ids, attention_mask):
        self.seen.append((input_ids.clone(), attention_mask.clone()))
        self.begun.set()
        assert self.go.wait(30)
        if (input_ids == 13).any():
            raise ValueError("13 is not computed")
        values = input_ids.float()
        return ModelOutput(start_logits=values, end_logits=-values, logits=values.sum(1, keepdim=True))


def inputs(value, length=4, rows=1):
    ids = torch.full((rows, length), value)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def waiting_for(shared, count):
    end = time.monotonic() + 30
    while len(shared._waiting) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def one_core():
    """(a model that is called together with others, its passes): one pass at a time."""
    model, shared = Held(), passes.Passes(runtime.Cores(1))
    before = torch.get_num_threads()
    yield passes.Together(model, shared, 7), model, shared
    model.go.set()
    torch.set_num_threads(before)


def begin(pool, together, shared, *batches):
    """The first batch begins, and is held; the others wait, in this order."""
    futures = [pool.submit(together, **batches[0])]
    assert together.model.begun.wait(30)
    for i, batch in enumerate(batches[1:], 1):
        futures.append(pool.submit(together, **batch))
        waiting_for(shared, i)
    return futures


def test_rows_of_requests_that_wait_end_in_one_pass(one_core):
    together, model, shared = one_core
    batches = [inputs(1), inputs(2, length=4), inputs(3, length=5, rows=2), inputs(4, length=4)]
    with ThreadPoolExecutor(4) as pool:
        futures = begin(pool, together, shared, *batches)
        model.go.set()
        found = [future.result(30) for future in futures]
    first, second = model.seen
    assert first[0].tolist() == [[1] * 4]
    assert sorted(second[0].tolist()) == [[2] * 4 + [7], [3] * 5, [3] * 5, [4] * 4 + [7]]
    assert sorted(second[1].sum(1).tolist()) == [4, 4, 5, 5]
    for batch, out in zip(batches, found, strict=True):
        ids = batch["input_ids"].float()
        assert torch.equal(out.start_logits, ids) and torch.equal(out.end_logits, -ids)
        assert out.logits.shape == (len(ids), 1)


def test_an_error_belongs_to_the_request_that_causes_it(one_core):
    together, model, shared = one_core
    with ThreadPoolExecutor(4) as pool:
        futures = begin(pool, together, shared, inputs(1), inputs(2), inputs(13), inputs(4))
        model.go.set()
        with pytest.raises(ValueError, match="13 is not computed"):
            futures[2].result(30)
        assert [int(futures[i].result(30).start_logits[0, 0]) for i in (0, 1, 3)] == [1, 2, 4]
    assert [len(ids) for ids, _ in model.seen] == [1, 3, 1, 1, 1]
    assert shared._cores.free == 1


def call(length, rows=1, model=None):
    return passes.Call(model or MODEL, inputs(1, length, rows), 0)


MODEL = Held()


def test_the_oldest_goes_first_and_the_nearest_in_length_go_with_it():
    oldest, short, near, same = call(100), call(20), call(110), call(100)
    assert passes.chosen([oldest, short, near, same], 1) == [oldest, same, near]
    # A short question does not wait for long contexts: those that are too different are left for other passes.
    assert passes.chosen([short, oldest, near, same], 1) == [short]


def test_a_pass_has_so_many_padded_tokens():
    calls = [call(100) for _ in range(20)]
    assert len(passes.chosen(calls, 1)) == 10
    own = Held()
    own.tokens_per_batch = 512
    assert len(passes.chosen([call(100, model=own) for _ in range(20)], 1)) == 5
    whole = call(300, rows=5)
    assert passes.chosen([whole, *calls], 1) == [whole]


def test_free_cores_share_the_calls():
    calls = [call(50) for _ in range(7)]
    assert len(passes.chosen(calls, 4)) == 2 and len(passes.chosen(calls, 7)) == 1


def test_models_are_not_mixed():
    mine, others = call(50), call(50, model=Held())
    assert passes.chosen([mine, others, call(50)], 1)[0] is mine
    assert others not in passes.chosen([mine, others], 1)


def test_who_is_alone_takes_every_core_and_who_leaves_others_waiting_a_part():
    shared = passes.Passes(runtime.Cores(4))
    model, threads = Held(), []
    model.go.set()
    model.register_forward_hook(lambda *_: threads.append(torch.get_num_threads()))
    together = passes.Together(model, shared, 0)
    together(**inputs(1))
    assert threads == [4] and shared._cores.free == 4
    threads.clear()
    both = Held(), Held()
    for each in both:
        each.register_forward_hook(lambda *_: threads.append(torch.get_num_threads()))
    with ThreadPoolExecutor(2) as pool:
        taken = shared._cores.take()
        asked = [pool.submit(passes.Together(each, shared, 0), **inputs(1)) for each in both]
        waiting_for(shared, 2)
        shared._cores.give(taken)
        # Neither ends before the other has begun.
        assert all(each.begun.wait(30) for each in both)
        for each in both:
            each.go.set()
        for future in asked:
            future.result(30)
    assert threads == [2, 2] and shared._cores.free == 4


def test_a_pass_that_cannot_be_counted_is_answered_all_the_same(one_core, monkeypatch, caplog):
    def full(*_):
        raise OSError("no space left")

    own = Observed(None)
    monkeypatch.setattr(own, "computed", full)
    monkeypatch.setattr(passes, "observed", lambda: own)
    together, model, shared = one_core
    model.go.set()
    assert torch.equal(together(**inputs(3)).start_logits, inputs(3)["input_ids"].float())
    assert shared._cores.free == 1 and "no space left" in caplog.text


def test_only_a_server_computes_together_and_never_with_onnx_runtime(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    # Whatever OMP_NUM_THREADS says here.
    monkeypatch.setattr(runtime, "cores_of_process", runtime.Cores)
    model, opened = Held(), []
    model.open_for = opened.append
    assert passes.computed_together(model, 0, "torch", ["pytest"]) is model
    assert not model._forward_pre_hooks
    assert passes.computed_together(model, 0, "onnx-int8", ["pytest"]) is model and opened == []
    assert isinstance(passes.computed_together(model, 0, "torch", SERVER), passes.Together)
    for name in ("onnx-fp32", "onnx-int8"):
        assert passes.computed_together(model, 0, name, SERVER) is model
    # A request that is alone takes both cores, and two of them one each.
    assert model._forward_pre_hooks and opened == [(1, 2), (1, 2)]


QUESTIONS = [{name: e[name] for name in ("question", "context")} for e in EXAMPLES]
LONG = [{"question": QUESTIONS[0]["question"], "context": " ".join(q["context"] for q in QUESTIONS) * 3}]
TEXTS = [{"text": e["text"] * n} for n, e in enumerate(trained.make_texts(8), 1)]
HELD = {"confidence": 0.95, "examples": 100, "thresholds": [[0.2, 0.5]]}

ASKED = {
    extractive_qa: [
        *(([question], {}) for question in QUESTIONS),
        (QUESTIONS[:3], {"top_k": 5, "null_odds": True}),
        (QUESTIONS[2:4], {"null_threshold": -1e6, "max_answer_length": 2}),
        (QUESTIONS[1:4], {"null_threshold": 1e6, "raw_scores": True, "top_k": 30}),
        (QUESTIONS[:2], {"max_error": 0.2}),
        (LONG, {"top_k": 2}),
        (LONG, {"max_answer_length": 1}),
    ],
    classification: [
        *(([text], {}) for text in TEXTS),
        (TEXTS[:3], {"top_k": 2}),
        (TEXTS[3:], {"raw_scores": True}),
        (TEXTS[2:5], {"max_error": 0.2}),
    ],
    multi_label: [
        *(([text], {}) for text in TEXTS),
        (TEXTS[:3], {"top_k": 2}),
        (TEXTS[3:], {"threshold": 0.9}),
    ],
}

BAD = {
    extractive_qa: [
        ([*QUESTIONS[:2], {"question": " ", "context": "A."}], {}),
        (QUESTIONS[:1], {"top_k": 0}),
    ],
    classification: [([*TEXTS[:2], {"text": ""}], {}), (TEXTS[:1], {"max_error": 0.01})],
    multi_label: [([{"text": 5}], {}), (TEXTS[:1], {"threshold": 2.0})],
}


@pytest.fixture
def server(monkeypatch):
    """This process counts as a server with one core; gives its cores and its passes."""
    monkeypatch.setattr(sys, "argv", SERVER)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caches = (runtime.cores_of_process, passes.passes_of_process)
    for cache in caches:
        cache.cache_clear()
    before = torch.get_num_threads()
    shared = runtime.cores_of_process(1)
    yield shared, passes.passes_of_process(shared)
    torch.set_num_threads(before)
    for cache in caches:
        cache.cache_clear()


def opened(served, folder, tiny):
    if served is extractive_qa:
        bundle, base, *_, info = trained.save(folder, tiny)
    else:
        bundle, base, *_, info = trained.save_classifier(folder, tiny, multi_label=served is multi_label)
    if served is not multi_label:
        info.settings["abstention"] = HELD
        bundles.write_info(bundle, info)
    base.rename(bundle / "base")
    model = served.MODEL()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(bundle)}, model_config=None))
    return model


def same(found, alone):
    """Whether two answers are equal; scores up to rounding."""
    if isinstance(alone, dict):
        return found.keys() == alone.keys() and all(same(found[name], alone[name]) for name in alone)
    if isinstance(alone, list):
        return len(found) == len(alone) and all(map(same, found, alone))
    return (
        found == pytest.approx(alone, abs=1e-4, nan_ok=True) if isinstance(alone, float) else found == alone
    )


@pytest.mark.parametrize("served", ASKED, ids=lambda module: module.__name__.rpartition(".")[2])
def test_everyone_gets_what_they_get_alone(served, server, tmp_path, tiny):
    shared, own = server
    model, sizes = opened(served, tmp_path, tiny), []
    inner = (model.answerer if served is extractive_qa else model.classifier).model.model
    inner.register_forward_pre_hook(
        lambda _, __, given: sizes.append(given["input_ids"].shape), with_kwargs=True
    )

    def ask(rows, params):
        return model.predict(None, pd.DataFrame(rows), params).to_dict("records")

    asked = ASKED[served] * 2
    alone = [ask(*each) for each in asked]
    most, calls = max(rows for rows, _ in sizes), len(sizes)
    sizes.clear()
    with ThreadPoolExecutor(len(asked) + 2) as pool:
        # Nobody begins before all wait.
        taken = shared.take()
        bad = [pool.submit(ask, *each) for each in BAD[served]]
        together = [pool.submit(ask, *each) for each in asked]
        waiting_for(own, len(asked))
        shared.give(taken)
        found = [future.result(60) for future in together]
        for future in bad:
            with pytest.raises(Refusal):
                future.result(60)
    assert len(sizes) < calls and max(rows for rows, _ in sizes) > most
    for (rows, params), one, other in zip(asked, found, alone, strict=True):
        assert same(one, other), (rows, params, one, other)
    assert shared.free == shared.count
