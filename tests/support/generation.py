"""Families that generate answers, their tokenizers, and prompts for them."""

import pytest
from transformers import AutoTokenizer

from common.models import base as models
from common.models.families import FAMILIES
from common.tasks.generative_qa.writing import make_prompts
from common.tasks.table import TASKS, head_of
from common.training.settings import RunArgs
from tests.support.cells import FIRST

TASK = "generative-qa"
QA = TASKS[TASK]
ARGS = RunArgs(task=TASK, max_length=64, doc_stride=8, max_answer_length=12)
HEADS = {name: head for name, family in FAMILIES.items() if (head := head_of(QA, family))}
KINDS = {name: FAMILIES[name].kind for name in HEADS}
LENGTHS = {"max_length": 64, "doc_stride": 8, "max_answer_length": 12}


EVERY_FAMILY = pytest.mark.parametrize(
    "family_name",
    [pytest.param(name, marks=() if name in FIRST else pytest.mark.long) for name in sorted(KINDS)],
)


@pytest.fixture(scope="module")
def tokenizers(tiny):
    return {name: models.completed(AutoTokenizer.from_pretrained(tiny(name))) for name in KINDS}


def prompts_of(tokenizer, examples, kind, **settings):
    settings = dict(max_length=64, doc_stride=8, max_answer_length=12) | settings
    return make_prompts(tokenizer, examples, kind=kind, **settings)
