"""A model whose code was changed in the store is not run: not a line of it."""

import gc
import importlib.util
import marshal
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pandas as pd
import pytest
import yaml

from common import checking, serving, stored_code, tracking
from common.errors import UserError
from tests import trained
from tests.questions import EXAMPLES

ASKED = {name: EXAMPLES[0][name] for name in ("question", "context")}
NAME = "stored-code"


@pytest.fixture(scope="module")
def logged(tmp_path_factory, tiny):
    """(id of a logged model, its run's id, its folder in the store); version 1 of NAME, alias champion, is made of it."""
    folder = tmp_path_factory.mktemp("stored-code")
    bundle, base, *_ = trained.save(folder, tiny)
    with trained.store(folder):
        with tracking.start("stored-code", "run", {}) as run:
            uri = serving.log_model(run, bundle, base, ASKED, {"test_f1": 50.0})
        model_id = uri.removeprefix("models:/")
        client = mlflow.MlflowClient()
        client.create_registered_model(NAME)
        client.create_model_version(NAME, uri, run.id, model_id=model_id)
        client.set_registered_model_alias(NAME, "champion", "1")
        place = client.get_logged_model(model_id).artifact_location
        yield model_id, run.id, Path(urlparse(place).path)


def test_an_untouched_model_is_loaded_by_each_of_its_names(logged):
    model_id, run_id, _ = logged
    answers = set()
    for uri in (
        f"models:/{model_id}", f"models:/{NAME}/1", f"models:/{NAME}@champion", f"models:/{NAME}/latest", f"runs:/{run_id}/model",
    ):  # fmt: skip
        answers.add(stored_code.load(uri).predict(pd.DataFrame([ASKED])).iloc[0]["answer"])
    assert len(answers) == 1


def test_the_copy_that_is_run_goes_with_its_model(logged, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = stored_code.load(f"models:/{logged[0]}")
    assert len(list(tmp_path.glob("stored-model-*"))) == 1
    del model
    gc.collect()
    assert not list(tmp_path.glob("stored-model-*"))


def module(folder):
    (found,) = folder.glob("code/suite_*/answering.py")
    return found


def in_a_module(folder, bomb):
    module(folder).write_text(bomb + module(folder).read_text())


def in_another_file(folder, bomb):
    (folder / "code" / "peft.py").write_text(bomb)


def in_the_loader(folder, bomb):
    (folder / "model.py").write_text(bomb + (folder / "model.py").read_text())


def by_another_loader(folder, bomb):
    (folder / "artifacts" / "bundle" / "other.py").write_text(bomb)
    about = yaml.safe_load((folder / "MLmodel").read_text())
    about["flavors"]["python_function"]["model_code_path"] = "artifacts/bundle/other.py"
    (folder / "MLmodel").write_text(yaml.safe_dump(about))


CHANGES = [in_a_module, in_another_file, in_the_loader, by_another_loader]


@pytest.fixture
def kept(logged, tmp_path):
    """The model's folder, as it was again after the test."""
    folder = logged[2]
    shutil.copytree(folder, tmp_path / "kept")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)


def explode(tmp_path):
    return f"import os\nos.mkdir({str(tmp_path / 'exploded')!r})\n"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_code_is_refused_before_a_line_of_it_runs(change, logged, kept, tmp_path):
    change(kept, explode(tmp_path))
    for uri in (f"models:/{NAME}@champion", f"runs:/{logged[1]}/model"):
        with pytest.raises(UserError, match=f"{uri} is not run: its code .* was changed since"):
            stored_code.load(uri)
    with pytest.raises(checking.Unloadable, match="was changed since"):
        checking.ask(f"models:/{logged[0]}", [ASKED])
    assert not (tmp_path / "exploded").exists()


def test_bytecode_that_lies_beside_the_code_is_not_run(logged, kept, tmp_path):
    """Python takes it for that of a source file of the same time and size."""
    source = module(kept)
    said = compile(explode(tmp_path), str(source), "exec")
    times = [int(n).to_bytes(4, "little") for n in (0, source.stat().st_mtime, source.stat().st_size)]
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(importlib.util.MAGIC_NUMBER + b"".join(times) + marshal.dumps(said))
    checking.ask(f"models:/{NAME}/1", [ASKED])
    assert not (tmp_path / "exploded").exists()


def test_mlflow_itself_loads_no_package_that_was_changed(logged, kept, tmp_path):
    """As `mlflow models serve` does, in a process that has not imported it yet."""
    in_a_module(kept, explode(tmp_path))
    load = f"import mlflow\nmlflow.pyfunc.load_model({str(kept)!r})"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "was changed since this model was logged" in done.stderr
    assert not (tmp_path / "exploded").exists()


def test_a_model_without_a_record_is_not_run(logged):
    client = mlflow.MlflowClient()
    held = client.get_logged_model(logged[0]).tags[stored_code.TAG]
    client.delete_logged_model_tag(logged[0], stored_code.TAG)
    with pytest.raises(UserError, match="without a record of its code"):
        stored_code.load(f"models:/{NAME}/1")
    client.set_logged_model_tags(logged[0], {stored_code.TAG: held})


def test_a_model_that_is_none_of_the_store(logged):
    with pytest.raises(UserError, match="leads to no logged model"):
        stored_code.load(str(logged[2]))
