"""The learning rate that a technique takes for a model of some size, where none is set."""

import pytest
from transformers import AutoConfig

from common.models import parts
from common.training import planning, rates
from common.training.settings import Technique
from tests.support.techniques import TECHNIQUES

LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
MINI = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


@pytest.mark.parametrize(
    ("model_type", "fields", "size", "millions"),
    [
        ("bert", MINI, "small", 11.0),
        ("bert", {}, "base", 86.0),
        ("bert", LARGE, "large", 303.9),
        ("distilbert", {}, "base", 42.9),
        ("roberta", LARGE | {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}, "large", 303.9),
        # XLM-RoBERTa base: 278 million parameters, 192 of them in its word embeddings.
        ("roberta", {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}, "base", 86.0),
    ],
)  # fmt: skip
def test_the_config_alone_says_how_large_a_model_is(model_type, fields, size, millions):
    found = parts.size(AutoConfig.for_model(model_type, **fields))
    assert rates.size_of(found) == size and found / 1e6 == pytest.approx(millions, abs=0.7)


def test_the_bounds_of_sizes():
    sizes = {39_999_999: "small", 40_000_000: "base", 249_999_999: "base", 250_000_000: "large"}
    assert {n: rates.size_of(n) for n in sizes} == sizes


@pytest.mark.parametrize("key", TECHNIQUES)
def test_every_technique_names_its_rates_and_their_sources(key):
    kind = TECHNIQUES[key]
    assert kind.rates is not Technique.rates and kind().learning_rate is None
    for size in rates.SIZES:
        rate = kind.rates.of(size)
        assert 0 < rate.value < 1 and len(rate.source) > 10
    assert kind.rates.small.value >= kind.rates.base.value >= kind.rates.large.value


def test_bert_base_with_all_weights_gets_3e_5_and_the_reason_is_told():
    technique, why = planning.with_rate(TECHNIQUES["standard"](), AutoConfig.for_model("bert"))
    assert technique.learning_rate == 3e-5
    assert why.startswith("default for a base model (86.") and "Devlin" in why
    technique, why = planning.with_rate(TECHNIQUES["standard"](), AutoConfig.for_model("bert", **MINI))
    assert technique.learning_rate == 1e-4 and "small model" in why


def test_a_rate_that_is_set_wins():
    given = TECHNIQUES["standard"](learning_rate=7e-5)
    assert planning.with_rate(given, AutoConfig.for_model("bert")) == (given, "set")


@pytest.mark.parametrize(
    ("value", "text"), [(1e-4, "1e-4"), (1.5e-5, "1.5e-5"), (0.05, "5e-2"), (1.0, "1e0"), (2.8e-3, "2.8e-3")]
)
def test_a_rate_is_written_briefly(value, text):
    assert rates.number(value) == text and float(text) == value
