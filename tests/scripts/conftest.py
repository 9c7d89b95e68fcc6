"""Prepared data, a store of its own and the real scripts, for tests that go through the command line."""

import json
import os
import subprocess
import sys

import mlflow
import pytest

from common.data import prepared as prepared_data
from common.paths import ROOT
from tests.support.called import call
from tests.support.questions import EXAMPLES
from tests.support.started import STARTER
from tests.support.stores import in_force

SMALL = (
    "--max_length", 96, "--doc_stride", 16, "--batch_size", 4, "--num_train_epochs", 2, "--logging_steps", 1,
)  # fmt: skip
"""A training of seconds."""


def run_script(name, *args, env=None, check=True, **kwargs):
    """Run `python scripts/NAME ARGS` in a process of its own; with its imports done where nothing but `cwd` is asked of it."""
    command = [str(ROOT / "scripts" / name), *map(str, args)]
    done = None
    if env is None and kwargs.keys() <= {"cwd"}:
        done = STARTER.run(command, **kwargs)
    done = done or subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        **kwargs,
    )
    if check:
        assert done.returncode == 0, (
            f"{name} left with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        )
    assert "Traceback" not in done.stderr or done.returncode not in (0, 2), done.stderr[-6000:]
    return done


def call_script(name, *args, cwd=None):
    """What `run_script` gives, within this process."""
    return call(ROOT / "scripts" / name, *args, cwd=cwd)


def run_here(name, *args, cwd=None, check=True):
    """What `run_script` gives, within this process: where the start of the script is proved by another test of it."""
    done = call_script(name, *args, cwd=cwd)
    assert done.returncode == 0 or not check, f"{name} left with {done.returncode}\n{done.stderr[-6000:]}"
    return done


def train(script, tiny, data, *flags, **kwargs):
    """A technique's script on a tiny BERT."""
    flags = ("--model_checkpoint", tiny("bert"), "--data_dir", data, *SMALL, *flags)
    return run_script(script, *flags, **kwargs)


def train_here(script, tiny, data, *flags, cwd=None, check=True):
    """What `train` does, within this process."""
    flags = ("--model_checkpoint", tiny("bert"), "--data_dir", data, *SMALL, *flags)
    return run_here(script, *flags, cwd=cwd, check=check)


def runs():
    """Of the store in force, the parts that others share left out."""
    return mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.technique != ''", output_format="list"
    )


def a_question(data_dir, recorded):
    """(a test question, what a run with these predictions answered to it)."""
    row = prepared_data.load(data_dir)[0]["test"][0]
    found = next(entry for entry in recorded if entry["id"] == row["id"])
    return {name: row[name] for name in ("question", "context")}, found["prediction"]


def squad_json(examples, version="v2.0"):
    """Examples as an official SQuAD file."""
    articles = {}
    for e in examples:
        answers = [
            dict(text=t, answer_start=s)
            for t, s in zip(e["answers"]["text"], e["answers"]["answer_start"], strict=True)
        ]
        qa = {"id": e["id"], "question": e["question"], "answers": answers, "is_impossible": not answers}
        articles.setdefault(e["title"], {}).setdefault(e["context"], []).append(qa)
    data = [
        {"title": title, "paragraphs": [{"context": c, "qas": qas} for c, qas in paragraphs.items()]}
        for title, paragraphs in articles.items()
    ]
    return json.dumps({"version": version, "data": data})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """(v2.0 data folder, v1.1 data folder): six train articles on two contexts each, four test articles."""
    folder = tmp_path_factory.mktemp("data")
    made = []
    for version in ("v2.0", "v1.1"):
        parts = {}
        for part, articles in (("train", 6), ("test", 4)):
            examples = []
            for a in range(articles):
                for e in EXAMPLES:
                    if version == "v2.0" or e["answers"]["text"]:
                        place = f"{part} {a}. "
                        moved = [s + len(place) for s in e["answers"]["answer_start"]]
                        answers = {"text": e["answers"]["text"], "answer_start": moved}
                        examples.append(
                            e
                            | dict(
                                id=f"{part}{a}{e['id']}",
                                title=f"{part} {a}",
                                context=place + e["context"],
                                answers=answers,
                            )
                        )
            parts[part] = folder / f"{part}-{version}.json"
            parts[part].write_text(squad_json(examples, version))
        output = folder / version
        files = ("--train_file", parts["train"], "--test_file", parts["test"], "--validation_share", 0.2)
        run_script("prepare_data.py", "--source", "files", *files, "--output_dir", output)
        made.append(output)
    return tuple(made)


@pytest.fixture
def store(tmp_path):
    """The URI of a fresh MLflow store, in force for this process and the scripts it starts."""
    with in_force(tmp_path) as uri:
        yield uri
