"""predict.py as it is typed: files, the standard input, kills, faults."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from common.errors import NotHere, UserError
from common.inference import models, predicting
from common.inference.backends import backends_of, everywhere
from common.paths import ROOT
from tests.scripts.conftest import call_script, run_here, run_script, squad_json
from tests.support import stores, trained
from tests.support.foreign import untrained_here
from tests.support.questions import EXAMPLES

sys.path.append(str(ROOT / "scripts"))
predict = importlib.import_module("predict")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with test.json, URI of a stored model) with the model's store in force."""
    folder = tmp_path_factory.mktemp("predict")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        id_ = trained.log_run(folder, tiny, record, EXAMPLES, experiment="predict")
        yield folder, f"runs:/{id_}/model"


@pytest.mark.long
def test_a_file_is_predicted_and_scored(world, tmp_path):
    folder, uri = world
    files = [tmp_path / name for name in ("p.json", "n.json", "o.json", "p.csv")]
    flags = [
        word
        for flag, file in zip(("output", "n_best", "null_odds", "csv"), files, strict=True)
        for word in (f"--{flag}", file)
    ]
    done = run_script("predict.py", "--model", uri, "--file", folder / "test.json", *flags)
    assert "8 questions: " in done.stdout and all(file.is_file() for file in files)
    assert "8/8" in done.stderr and "questions/s" in done.stderr
    scored = run_script("score.py", folder / "test.json", files[0], "--na-prob-file", files[2])
    assert "best_f1" in json.loads(scored.stdout)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
def test_lines_on_the_standard_input_have_no_references(world, tmp_path):
    lines = "\n".join(json.dumps({"question": e["question"], "context": e["context"]}) for e in EXAMPLES)
    run_script("predict.py", "--model", world[1], "--file", "-", "--output", tmp_path / "p.json", input=lines)
    ids = list(json.loads((tmp_path / "p.json").read_text()))
    assert len(set(ids)) == 8 and all(id_.startswith("stdin-") for id_ in ids)


def test_anybodys_model_of_a_family_that_is_not_trained_here(world, tmp_path):
    folder, _ = world
    untrained_here(tmp_path / "model", "big_bird")
    asked = ["--model", tmp_path / "model", "--file", folder / "test.json"]
    run_here("predict.py", *asked, "--output", tmp_path / "p.json")
    answers = json.loads((tmp_path / "p.json").read_text())
    assert len(answers) == 8 and all(answers.values())
    scored = json.loads(run_here("score.py", folder / "test.json", tmp_path / "p.json").stdout)
    done = run_here("evaluate.py", *asked)
    assert f"{scored['f1']:.1f}" in done.stdout


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_bytes(world, tmp_path):
    rows = [e | {"id": f"{i}-{e['id']}", "title": f"{i}"} for i in range(500) for e in EXAMPLES]
    (tmp_path / "many.json").write_text(squad_json(rows))
    command = ["predict.py", "--model", world[1], "--file", tmp_path / "many.json"]
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    run_here(*command, "--output", whole)
    words = [sys.executable, str(ROOT / "scripts" / command[0]), *map(str, command[1:]), "--output", str(cut)]
    kills = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        flags = ["--resume"] if kills else []
        before = len(list(tmp_path.glob(".cut.json.blocks/0*.json")))
        process = subprocess.Popen(
            [*words, *flags], stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob(".cut.json.blocks/0*.json"))) <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        kills += process.returncode != 0
        assert process.returncode in (-9, 130) and not cut.exists(), error
    assert "To go on: " in error and error.rstrip().splitlines()[-2].endswith("--resume")
    assert kills == 2
    run_script(*command, "--output", cut, "--resume")
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--file", "missing.json"), "missing.json: No such file"),
        (("--model", "models:/nothing@champion"), "models:/nothing@champion"),
        (("--model", "someone/nothing"), "to no model in the hub's cache"),
        (("--workers", "2"), "--address and --workers are for --backend ray"),
        (("--null_threshold", "x"), "'x' is not a finite number"),
    ],
)
def test_mistakes_are_one_line(flags, reason, world, tmp_path):
    given = {"--model": world[1], "--file": world[0] / "test.json", "--output": tmp_path / "p.json"}
    given |= dict([flags])
    words = [word for pair in given.items() for word in pair]
    done = call_script("predict.py", *words)
    assert done.returncode == 2 and reason in done.stderr.splitlines()[-1]


def test_ray_that_is_missing_is_named_before_the_model_is_loaded(monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "common.inference.ray_backend", None)
        patch.setattr(models, "load", lambda *_, **__: pytest.fail("the model was loaded"))
        patch.setattr(sys, "argv", f"predict.py --model m --file f --output {ROOT}/x --backend ray".split())
        with pytest.raises(NotHere, match="requirements-ray.txt"):
            predict.main()
    assert backends_of("local") is predicting.here
    with pytest.raises(UserError, match="are for --backend ray"):
        backends_of("local", workers=2)


def test_workers_of_other_folders_find_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    assert everywhere("saved") == everywhere("./saved") == str(tmp_path / "saved")
    for name in ("someone/qa", "models:/saved@champion", "runs:/ab/model", "0" * 32):
        assert everywhere(name) == name
