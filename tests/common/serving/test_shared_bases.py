"""Adapters of one base in a server that opens models on demand: one copy of its weights, the answers of each alone."""

import gc
import sys

import pytest
import torch

from common.serving import classification, extractive_qa, held_models, runtime, shared_bases
from tests.support import trained
from tests.support.questions import EXAMPLES

ASKED = [{name: e[name] for name in ("question", "context")} for e in EXAMPLES]
TEXTS = [{"text": e["context"]} for e in EXAMPLES]


@pytest.fixture
def sharing(monkeypatch):
    """Makes this process count as a server that opens models on demand."""

    def begin():
        monkeypatch.setattr(sys, "argv", ["uvicorn", "app"])
        monkeypatch.setenv(shared_bases.MODELS, "team-*@champion")

    threads = torch.get_num_threads()
    yield begin
    torch.set_num_threads(threads)
    runtime.cores_of_process.cache_clear()


@pytest.mark.parametrize("task", ["questions", "labels"])
def test_a_base_is_there_once_and_goes_with_the_last_adapter(task, tiny, tmp_path, sharing):
    def opened(number):
        if task == "questions":
            return extractive_qa.Answerer(*saved[number]).answer
        return classification.Classifier(*saved[number]).classify

    saved = {}
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        save = trained.save if task == "questions" else trained.save_classifier
        saved[number] = save(tmp_path / str(number), tiny, seed=number)[:2]
    asked = ASKED if task == "questions" else TEXTS
    alone = [opened(number)(asked) for number in (0, 1)]
    sharing()
    answers = [opened(number) for number in (0, 1)]
    one, both = (
        held_models.weights_in(held) for held in (answers[0].__self__, [a.__self__ for a in answers])
    )
    largest = max(one.values())
    # Its largest part, the words, is there once.
    assert sum(both.values()) < 2 * sum(one.values()) - largest
    for answer, expected in zip(answers, alone, strict=True):
        for found, wanted in zip(answer(asked), expected, strict=True):
            assert found == [pytest.approx(each, abs=1e-4) for each in wanted]
    del answers[0], answer
    gc.collect()
    assert opened(0).__self__.shared is answers[0].__self__.shared
    base = [shared_bases.shared_base(saved[0][1], answers[0].__self__.info)]
    assert base[0] is answers[0].__self__.shared
    left = answers.pop().__self__
    del left, base
    gc.collect()
    place = sys.modules.get(shared_bases.SERVER, shared_bases)
    assert not list(getattr(place, shared_bases.PLACE).values())


def test_a_model_with_weights_of_its_own_shares_nothing(tiny, tmp_path, sharing):
    bundle, base, *_ = trained.save(tmp_path, tiny, "standard")
    sharing()
    assert extractive_qa.Answerer(bundle, base).shared is None


def test_elsewhere_an_adapter_is_merged_into_a_base_of_its_own(tiny, tmp_path):
    bundle, base, *_ = trained.save(tmp_path, tiny)
    answerer = extractive_qa.Answerer(bundle, base)
    assert answerer.shared is None
    assert not any("lora" in name for name, _ in answerer.model.named_parameters())
