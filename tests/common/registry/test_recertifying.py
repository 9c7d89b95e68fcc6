"""A converted model's promises rest on its own answers."""

from dataclasses import replace

import numpy as np
import pytest

from common.data import prepared
from common.models import bundles
from common.registry import recertifying
from common.scoring import abstention
from common.serving.extractive_qa import Answerer
from common.tasks.table import TASKS
from tests.support import trained

QA = TASKS["extractive-qa"]
BEFORE = {"temperature": 1.5, "abstention": {"confidence": 0.95, "examples": 9, "thresholds": [[0.1, 0.25]]}}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(bundle, its settings, validation, where the model is right but for the answer that it is least sure of, record)."""
    folder = tmp_path_factory.mktemp("recertifying")
    record = trained.prepare_data(folder)
    bundle, _, _, _, info = trained.save(folder, tiny, technique="standard")
    info = replace(info, settings={**info.settings, **BEFORE})
    bundles.write_info(bundle, info)
    test = prepared.load(folder / "data")[0]["test"].to_list() * 10
    # Each is an article of its own.
    test = [e | {"id": f"{i}", "title": f"{i}", "context": f"{e['context']} {i}"} for i, e in enumerate(test)]
    # Of the same batches, as candidates lie close to each other.
    answers = Answerer(bundle).answer([QA.request(e) for e in test])
    truth = [{"text": [a[0]["answer"]] if a[0]["answer"] else [], "answer_start": []} for a in answers]
    right = [e | {"answers": t} for e, t in zip(test, truth, strict=True)]
    least = int(np.argmin([a[0]["raw_score"] for a in answers]))
    right[least] |= {"answers": {"text": ["no model says this"], "answer_start": []}}
    return bundle, dict(info.settings), right, record


def test_promises_are_certified_on_its_own_raw_scores(world):
    bundle, settings, validation, record = world
    found = recertifying.settings(QA, bundle, settings, validation, record, choices=2)
    raw = [a[0]["raw_score"] for a in Answerer(bundle).answer([QA.request(e) for e in validation])]
    right = np.ones(len(raw), dtype=bool)
    right[int(np.argmin(raw))] = False
    expected = abstention.certify(np.array(raw), right, choices=2)
    held = found["abstention"]
    assert held["thresholds"] == [[p.max_error, p.threshold] for p in expected]
    assert held["examples"] == len(raw) and any(threshold is not None for _, threshold in held["thresholds"])
    changed = {name for name in settings if settings[name] != found[name]}
    assert changed == {"abstention"}


def test_questions_of_one_article_count_as_a_group(world):
    """As many right answers of a single article promise nothing."""
    bundle, settings, validation, record = world
    one = [{**example, "title": "one"} for example in validation]
    found = recertifying.settings(QA, bundle, settings, one, record, choices=2)["abstention"]
    assert found["groups"] == 1 and all(threshold is None for _, threshold in found["thresholds"])


def test_without_validation_nothing_is_promised(world):
    bundle, settings, _, _ = world
    found = recertifying.settings(QA, bundle, settings, [], None, choices=1)
    assert all(threshold is None for _, threshold in found["abstention"]["thresholds"])


def test_a_model_that_promised_nothing_stays_as_it_is(world):
    bundle, settings, validation, record = world
    before = {name: value for name, value in settings.items() if name != "abstention"}
    assert recertifying.settings(QA, bundle, before, validation, record, choices=1) == before
