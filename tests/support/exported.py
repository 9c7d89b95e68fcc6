"""Saved models of any technique, family and head, with their base inside, as a stored model has them: trained by noise."""

import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants

from common.export import checking, opened_alone
from common.models import base as models
from common.models import bundles, saving
from common.models.families import FAMILIES
from tests.support.cells import CONFIGS, QA
from tests.support.techniques import technique as technique_of

TASKS = {
    "QuestionAnswering": "extractive-qa",
    "SequenceClassification": "classification",
    "CausalLM": "generative-qa",
    "Seq2SeqLM": "generative-qa",
}
SETTINGS = {
    "extractive-qa": {"doc_stride": 16, "max_answer_length": 30, "n_best": 20, "version": "v1.1"},
    "classification": {"labels": ["negative", "positive"]},
    "generative-qa": {"doc_stride": 16, "max_answer_length": 8},
}


def saved(folder, tiny, technique="lora", family_name="bert", head=QA, *, checkpoint=None, **options):
    """The folder of a saved model whose trained parameters were moved. checkpoint: its base; default: a tiny one of the
    family. options: the technique's."""
    found = models.resolve_checkpoint(checkpoint or tiny(family_name))
    family, config = FAMILIES[family_name], CONFIGS.get(head, {})
    torch.manual_seed(0)
    model, tokenizer = models.load_base(found, head, **config)
    method = technique_of(technique, **options).method(family)
    model = models.apply(method, model, family, head)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                in_head = any(part in name for part in family.heads[head])
                parameter.add_((1.0 if in_head else 0.05) * torch.randn(parameter.shape))
    bundle, print_ = folder / "bundle", ""
    if technique != "standard":
        bundle.mkdir(parents=True)
        print_ = saving.save_base(found, bundle / "base", head, **config)
    task = TASKS[head]
    settings = {"max_length": 96} | SETTINGS[task]
    info = bundles.BundleInfo(
        technique_of(technique, **options).name, family_name, found.name, print_, task, head, settings
    )
    saving.save_bundle(bundle, info, model.eval(), tokenizer, method)
    return bundle


def alone(program, cwd, *arguments):
    """What a program prints that runs in a process which has the libraries and cannot import this project."""
    blocked = "import importlib.util as u\nassert u.find_spec('common') is None and u.find_spec('mlflow')\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", blocked + program, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def opened_here(monkeypatch):
    """Folders are opened in this process: a fresh one takes seconds, and has tests of its own."""

    def ask(request, name):
        model, tokenizer = opened_alone.opened(request)
        return opened_alone.read(model, tokenizer, request["head"], request["rows"])

    monkeypatch.setattr(checking, "in_fresh_process", ask)


@pytest.fixture
def of_hub(tiny, tmp_path, monkeypatch):
    """A function that puts the tiny model of a family into the cache of the hub (tmp_path / "hub"); gives its name and commit."""
    cache = tmp_path / "hub"
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setenv(name, str(cache))
        monkeypatch.setattr(constants, name, str(cache))

    def put(family_name):
        commit, place = "c" * 40, cache / f"models--acme--tiny-{family_name}"
        shutil.copytree(tiny(family_name), place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        return f"acme/tiny-{family_name}", commit

    return put
