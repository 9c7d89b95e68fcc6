"""A small study's content, and what is made of such."""

from common.studies import declaration
from tests.support.techniques import TECHNIQUES

SMALL = {"name": "small", "description": "A small one.", "techniques": ["lora", "ia3"]}


def size(task, data_dir, split):
    return {"train": 1000, "validation": 100, "test": 200}[split]


def parse(content, **kwargs):
    return declaration.parse(content, "s.yaml", TECHNIQUES, **kwargs)


def rows(content, stage=0, best=None, **kwargs):
    study = parse(content, **kwargs)
    return declaration.expand(study, study.stages[stage], size, best)
