"""A model whose code was changed in the store is not run: not a line of it."""

import compileall
import contextlib
import gc
import hashlib
import importlib.util
import itertools
import json
import marshal
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from common.errors import UserError
from common.paths import ROOT
from common.registry import adapter_set as adapters
from common.registry import checking, versions
from common.serving import model_logging, stored_code
from common.tracking import experiments, runs
from tests.support import stores, tampering, trained
from tests.support.questions import EXAMPLES
from tests.support.tampering import added, changed, cut, removed

ASKED = {name: EXAMPLES[0][name] for name in ("question", "context")}
NAME = "stored-code"


@pytest.fixture(scope="module")
def logged(tmp_path_factory, tiny):
    """(id of a logged model, its run's id, its folder in the store); version 1 of NAME, alias champion, is made of it."""
    folder = tmp_path_factory.mktemp("stored-code")
    bundle, base, *_ = trained.save(folder, tiny)
    with stores.in_force(folder):
        with runs.start("stored-code", "run", {}) as run:
            uri = model_logging.log_model(run, bundle, base, ASKED, {"test_f1": 50.0})
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
    held = weakref.ref(model.unwrap_python_model())
    del model
    gc.collect()
    assert not list(tmp_path.glob("stored-model-*")) and held() is None


def test_a_base_that_a_loaded_model_has_is_not_read_again(logged, tiny, tmp_path, monkeypatch):
    read, downloaded = [], stored_code._downloaded
    monkeypatch.setattr(
        stored_code, "_downloaded", lambda source, *rest: read.append(source) or downloaded(source, *rest)
    )

    def bases_read(model_bases):
        read.clear()
        model = stored_code.load(f"models:/{logged[0]}", bases=model_bases)
        return model, sum(source.startswith("runs:/") for source in read)

    def answer(model):
        return model.predict(pd.DataFrame([ASKED])).iloc[0].to_dict()

    bases = stored_code.Bases()
    first, times = bases_read(bases)
    assert times == 1
    expected = answer(first)
    second, times = bases_read(bases)
    assert times == 0
    # The first one goes with its files; the second has its own names for them.
    del first
    gc.collect()
    assert answer(second) == expected
    third, times = bases_read(bases)
    assert times == 0 and answer(third) == expected
    del second, third
    gc.collect()
    assert bases_read(bases)[1] == 1 and bases_read(None)[1] == 1
    # What a model has inside itself is another thing: that of an ONNX version has no weights, for example.
    bundle, base, *_ = trained.save(tmp_path, tiny)
    shutil.copytree(base, bundle / "base", dirs_exist_ok=True)
    uri = model_logging.log_bundle(bundle, ASKED, run_id=logged[1], name="whole").model_uri
    bases = stored_code.Bases()
    whole = stored_code.load(uri, bases=bases)
    assert bases_read(bases)[1] == 1 and answer(whole) == expected


def test_nothing_refers_to_the_copy_of_a_model_that_does_not_load(logged, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # As in a fresh process, where this model is the first with its code.
    for name in [name for name in sys.modules if name.startswith("suite_")]:
        monkeypatch.delitem(sys.modules, name)

    def fail(*_, **__):
        raise MemoryError("too large")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.pyfunc, "PyFuncModel", fail)
        with pytest.raises(UserError, match="does not load: MemoryError: too large"):
            stored_code.load(f"models:/{logged[0]}")
    files = [str(getattr(module, "__file__", None)) for module in sys.modules.values()]
    assert not [place for place in (*sys.path, *files) if place.startswith(str(tmp_path))]
    assert stored_code.load(f"models:/{logged[0]}").predict(pd.DataFrame([ASKED])) is not None


def module(folder):
    (found,) = folder.glob("code/suite_*/serving/extractive_qa.py")
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
        with pytest.raises(
            UserError, match=f"{uri} is not loaded: its file .* (was changed|was added) since"
        ):
            stored_code.load(uri)
    with pytest.raises(checking.Unloadable, match="was (changed|added) since"):
        checking.ask(f"models:/{logged[0]}", [ASKED])
    assert not (tmp_path / "exploded").exists()


@pytest.mark.long
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


@pytest.fixture
def unrecorded(logged):
    """The tags of the model, which are put back after the test."""
    client = mlflow.MlflowClient()
    held = client.get_logged_model(logged[0]).tags
    mine = [name for name in held if name.startswith((stored_code.FILES, stored_code.BASE))]
    for name in mine:
        client.delete_logged_model_tag(logged[0], name)
    yield
    with contextlib.suppress(MlflowException):
        client.delete_logged_model_tag(logged[0], stored_code.CODE)
    client.set_logged_model_tags(logged[0], {name: held[name] for name in mine})


def test_a_model_without_a_record_is_not_run(logged, unrecorded):
    with pytest.raises(UserError, match="without a record of its files"):
        stored_code.load(f"models:/{NAME}/1")


def test_a_model_whose_code_alone_was_recorded_runs_on_that_code_and_on_its_runs_base(
    logged, unrecorded, kept, tmp_path
):
    """As earlier versions logged it."""
    client, uri = mlflow.MlflowClient(), f"models:/{NAME}/1"
    digest = hashlib.sha256(json.dumps(Model.load(str(kept)).flavors, sort_keys=True).encode())
    for file in sorted(
        [*kept.glob("code/**/*.py"), kept / "model.py"], key=lambda f: str(f.relative_to(kept))
    ):
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(kept)}\0{len(content)}\0".encode() + content)
    client.set_logged_model_tags(logged[0], {stored_code.CODE: digest.hexdigest()})
    client.set_tag(logged[1], stored_code.BASE, json.loads(bundle_file(kept, "base.json"))["fingerprint"])
    assert stored_code.load(uri).predict(pd.DataFrame([ASKED])).iloc[0]["answer"] is not None
    client.set_tag(logged[1], stored_code.BASE, "f" * 64)
    with pytest.raises(UserError, match="base.json refers to another base"):
        stored_code.load(uri)
    in_a_module(kept, explode(tmp_path))
    with pytest.raises(UserError, match="its code .* was changed"):
        stored_code.load(uri)


def test_a_model_is_logged_and_loaded_where_python_leaves_bytecode_beside_its_code(
    logged, tmp_path, tiny, monkeypatch
):
    """As it does on a user's machine: MLflow imports the package once while it logs it."""
    assert not sys.dont_write_bytecode
    original, compiled = model_logging.copy_of_package, []

    def with_bytecode(folder, served):
        package = original(folder, served)
        assert compileall.compile_dir(package, quiet=1)
        compiled.extend(package.rglob("*.pyc"))
        return package

    monkeypatch.setattr(model_logging, "copy_of_package", with_bytecode)
    bundle, base, *_ = trained.save(tmp_path, tiny, seed=5)
    with runs.start("stored-code", "with bytecode", {}) as run:
        uri = model_logging.log_model(run, bundle, base, ASKED, {})
    assert len(compiled) > 10
    recorded = stored_code.from_tags(mlflow.get_logged_model(uri.removeprefix("models:/")).tags)
    assert not [name for name in recorded if "__pycache__" in name or name.endswith(".pyc")]
    folder = Path(urlparse(mlflow.get_logged_model(uri.removeprefix("models:/")).artifact_location).path)
    for _ in range(2):
        assert isinstance(stored_code.load(uri).predict(pd.DataFrame([ASKED])).iloc[0]["answer"], str)
        # Loaded from where it lies, it leaves bytecode there.
        mlflow.pyfunc.load_model(str(folder))


def bundle_file(folder, name):
    return (folder / "artifacts" / "bundle" / name).read_text()


def test_a_model_that_is_none_of_the_store(logged):
    with pytest.raises(UserError, match="leads to no logged model"):
        stored_code.load(str(logged[2]))


def own_door(uri, run_id, scratch):
    tampering.loaded(uri)


def page(uri, run_id, scratch):
    tampering.asked_on_the_page(uri)


def gate(uri, run_id, scratch):
    try:
        checking.ask(uri, [ASKED])
    except checking.Unloadable as error:
        raise UserError(str(error)) from None


def registration_and_onnx(uri, run_id, scratch):
    versions.self_contained(uri, scratch)


def adapter_set(uri, run_id, scratch):
    adapters.assemble({"LoRA": mlflow.get_run(run_id)}, scratch / "set")


EVERY = [changed, cut, removed, added]
DOORS = [own_door, page, gate, registration_and_onnx, adapter_set]


@pytest.mark.long
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_file_of_a_model_and_of_its_base_is_held_against_the_record(door, logged, kept, tmp_path):
    """Each change of each file at one door, a changed byte of each file at the others."""
    changes = EVERY if door is own_door else [changed]
    numbers = itertools.count()

    def asked():
        door(f"models:/{NAME}/1", logged[1], tmp_path / str(next(numbers)))

    names = tampering.refused(asked, [kept, base_folder(kept)], changes)
    assert len(names) > 25 and "requirements.txt" in names


def base_folder(kept):
    """Of the base that a model refers to, in the store."""
    run_id = json.loads(bundle_file(kept, "base.json"))["uri"].split("/")[1]
    return Path(urlparse(mlflow.get_run(run_id).info.artifact_uri).path) / "base"


def test_another_base_in_the_place_of_the_models_own(logged, kept, tiny):
    """Recorded and whole, but not the one that the model was trained on."""
    file = kept / "artifacts" / "bundle" / "base.json"
    reference = json.loads(file.read_text())
    client = mlflow.MlflowClient()
    run = client.create_run(
        experiments.experiment_id(model_logging.SHARED_BASES), tags={stored_code.BASE: "f" * 64}
    )
    client.log_artifacts(run.info.run_id, tiny("bert"), "base")
    other = {"uri": f"runs:/{run.info.run_id}/base"}
    for given in (other | {"fingerprint": "f" * 64}, reference | other):
        file.write_text(json.dumps(given))
        for door in (stored_code.load, lambda uri: mlflow.pyfunc.load_model(str(kept))):
            with pytest.raises(
                (UserError, Exception), match="its file (artifacts/bundle/)?base.json was changed"
            ):
                door(f"models:/{NAME}/1")


@pytest.mark.parametrize("change", EVERY)
def test_mlflow_itself_loads_no_saved_model_that_was_changed(change, logged, kept):
    """`mlflow models serve` asks for no record: the loader holds the files against what is written in it."""
    bundle, base = kept / "artifacts" / "bundle", base_folder(kept)
    assert mlflow.pyfunc.load_model(str(kept))
    for folder in (bundle, base):
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            content = file.read_bytes()
            told = change(file)
            try:
                with pytest.raises(
                    Exception, match=f"{told} since|not the base that this model was"
                ) as caught:
                    mlflow.pyfunc.load_model(str(kept))
                assert type(caught.value).__name__ == "UserError"
            finally:
                file.write_bytes(content)
                file.with_name(f"{file.name}.more").unlink(missing_ok=True)


@pytest.mark.long
def test_ask_tells_it_in_one_line(logged, kept):
    changed(kept / "artifacts" / "bundle" / "adapter" / "adapter_model.safetensors")
    command = [sys.executable, str(ROOT / "scripts" / "ask.py"), "--model", f"models:/{NAME}/1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and not done.stdout
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(f"error: models:/{NAME}/1 is not loaded: its file artifacts/")
    )
