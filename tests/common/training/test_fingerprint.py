"""What a run's fingerprint follows from: change it and "already finished" is no longer said."""

import importlib.util
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from common import files
from common.errors import UserError
from common.models import base
from common.models.families import FAMILIES
from common.paths import ROOT
from common.training import fingerprint, planning
from common.training.settings import RunArgs, Technique, run_fingerprint
from tests.scripts.conftest import prepared, store  # noqa: F401
from tests.support.techniques import TECHNIQUES

BERT = FAMILIES["bert"]
LORA = TECHNIQUES["lora"]

DECIDE = {
    "errors.py",
    "models/cpu_kernels.py",
    "scoring/squad.py",
    "tasks/table.py",
    "tasks/extractive_qa/spans.py",
    "training/settings.py",
    "training/trainer.py",
}
"""Some of the modules that must count: a set that is emptied, or cut, must not pass."""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, which is what fingerprints are made of."""
    copy = tmp_path / "common"
    shutil.copytree(fingerprint.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    return copy


def script(file: Path) -> type[Technique]:
    """The technique of a script, as `technique_scripts` finds it."""
    spec = importlib.util.spec_from_file_location(f"copied_{time.monotonic_ns()}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return next(
        k
        for k in vars(module).values()
        if isinstance(k, type) and issubclass(k, Technique) and k is not Technique
    )


def changed(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n# changed\n")


def test_a_changed_byte_counts_in_each_module_that_decides_and_in_no_other(package):
    before, counted, others = fingerprint.code(), set(), set()
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        changed(file)
        name = file.relative_to(package).as_posix()
        (others if fingerprint.code() == before else counted).add(name)
        file.write_bytes(content)
    assert fingerprint.code() == before
    assert counted >= DECIDE and len(counted) > 40
    assert {name.partition("/")[0] for name in others} == {
        "api",
        "data",
        "export",
        "inference",
        "page",
        "registry",
        "reports",
        "serving",
        "studies",
        "team",
        "tracking",
    }


def test_a_new_module_counts_where_it_lies(package):
    before = fingerprint.code()
    (package / "page" / "fresh_idea.py").write_text("RATE = 1\n")
    assert fingerprint.code() == before
    (package / "models" / "fresh_idea.py").write_text("RATE = 1\n")
    assert fingerprint.code() != before


def test_a_package_that_is_gone_is_no_empty_one(package):
    shutil.rmtree(package / "tasks")
    with pytest.raises(FileNotFoundError, match="no package tasks"):
        fingerprint.code()


def test_a_package_that_a_script_imports_counts_for_its_technique(package, tmp_path):
    file = tmp_path / "own_figures.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom common.training.settings import Technique\n\n"
        "@dataclass(frozen=True)\nclass OwnFigures(Technique):\n    name = key = 'own'\n\n"
        "    def method(self, family):\n        from common.reports import run_figures\n"
    )
    technique = script(file)()
    before, of_another = fingerprint.of_technique(technique, BERT), fingerprint.of_technique(LORA(), BERT)
    changed(package / "reports" / "run_figures.py")
    assert fingerprint.of_technique(technique, BERT) != before
    assert fingerprint.of_technique(LORA(), BERT) == of_another


def test_an_edited_method_is_another_run(tmp_path, monkeypatch):
    """The settings are the same, the PEFT config is not."""
    monkeypatch.setitem(sys.modules, "_path", ModuleType("_path"))
    original = ROOT / "scripts" / "bert_fine_tuning_LoRA.py"
    monkeypatch.syspath_prepend(ROOT / "scripts")
    shutil.copy(ROOT / "scripts" / "_path.py", tmp_path)
    copy = tmp_path / original.name
    shutil.copy(original, copy)
    assert fingerprint.of_technique(script(copy)(), BERT) == fingerprint.of_technique(LORA(), BERT)
    text = copy.read_text()
    copy.write_text(text.replace("lora_alpha=self.alpha", "lora_alpha=self.alpha * 4"))
    assert copy.read_text() != text
    assert fingerprint.of_technique(script(copy)(), BERT) != fingerprint.of_technique(LORA(), BERT)


def test_what_a_script_imports_from_its_own_folder_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_way.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom scale_of_own_way import SCALE\nfrom common.training.settings import Technique\n\n"
        "@dataclass(frozen=True)\nclass OwnWay(Technique):\n    name = key = 'own'\n"
    )
    (tmp_path / "scale_of_own_way.py").write_text("SCALE = 1\n")
    technique = script(file)()
    before = fingerprint.of_technique(technique, BERT)
    (tmp_path / "scale_of_own_way.py").write_text("SCALE = 2\n")
    assert fingerprint.of_technique(technique, BERT) != before


def test_the_method_is_the_config_that_peft_is_given():
    """Not what the fields say: another family gives other layers."""
    found = [
        fingerprint.of_technique(kind(), FAMILIES[family])["method"]
        for kind in (LORA, TECHNIQUES["ia3"])
        for family in ("bert", "t5")
    ]
    assert len(set(found)) == 4
    four, eight = (fingerprint.of_technique(LORA(r=r), BERT) for r in (4, 8))
    assert {name for name in four if four[name] != eight[name]} == {"method"}


def test_values_that_peft_refuses_are_one_line():
    @dataclass(frozen=True)
    class Broken(Technique):
        name = key = "Broken"

        def method(self, family):
            raise ValueError("`r` should be\na positive integer")

    with pytest.raises(
        UserError, match="^Broken cannot be set up with these values: `r` should be a positive integer$"
    ):
        fingerprint.of_technique(Broken(), BERT)


@pytest.fixture
def folder(tmp_path, tiny):
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny("bert"), copy)
    return copy


def content(folder):
    return fingerprint.checkpoint(base.resolve_checkpoint(str(folder)))


def flipped(file: Path) -> None:
    """One bit changed, size and time of writing kept."""
    times = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"]
)
def test_an_overwritten_file_of_a_checkpoint_is_another_checkpoint(folder, name):
    before = content(folder)
    assert content(folder) == before
    flipped(folder / name)
    assert content(folder) != before


def test_a_file_that_is_remembered_is_read_again_once_it_changes(folder, monkeypatch):
    """As it is with a checkpoint that was there long before: hashed once, and again after each change."""
    read = []
    monkeypatch.setattr(files, "_SETTLED", -1.0)
    monkeypatch.setattr(fingerprint, "sha256", lambda file: read.append(file.name) or f"{len(read)}")
    before = content(folder)
    assert content(folder) == before and len(read) == len(set(read)) > 2
    time.sleep(0.05)
    flipped(folder / "model.safetensors")
    assert content(folder) != before and read[-1] == "model.safetensors"


def test_descriptions_and_the_state_of_a_trainer_do_not_count_and_a_further_file_does(folder):
    before = content(folder)
    for name in ("README.md", "optimizer.pt", "training_args.bin", ".gitattributes"):
        (folder / name).write_text("x")
    assert content(folder) == before
    (folder / "added_tokens.json").write_text("{}")
    assert content(folder) != before


def test_the_same_content_under_another_name_is_the_same_checkpoint(folder, tmp_path):
    before = content(folder)
    folder.rename(tmp_path / "moved")
    assert content(tmp_path / "moved") == before


def test_of_the_packaged_model_each_shape_is_another(monkeypatch):
    plain, distil = (
        fingerprint.checkpoint(base.resolve_checkpoint(n)) for n in ("embedded", "embedded-distilbert")
    )
    assert plain != distil


def test_the_packaged_weights_are_read_once_however_many_rows_a_study_has(monkeypatch):
    read = []

    def counted(file):
        read.append(file)
        return files.sha256(file)

    monkeypatch.setattr(base, "sha256", counted)
    assert base.packaged_model() == base.packaged_model() and len(read) == 1


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """(id of a model in a cache of the hub, a function that moves its branch `main` to a commit)."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--org--model"
    (place / "refs").mkdir(parents=True)

    def moved(commit, folder=None):
        if folder:
            shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs" / "main").write_text(commit)

    return "org/model", moved


def test_of_a_model_of_the_hub_that_commit_is_loaded_that_was_fingerprinted(hub, tiny):
    name, moved = hub
    first, second = "a" * 40, "b" * 40
    moved(first, tiny("bert"))
    found = base.resolve_checkpoint(name)
    before = fingerprint.checkpoint(found)
    assert found.revision == first and before == fingerprint.checkpoint(base.resolve_checkpoint(name))
    # Meanwhile the branch moves on to a model of another family.
    moved(second, tiny("roberta"))
    later = base.resolve_checkpoint(name)
    assert fingerprint.checkpoint(later) != before and later.revision == second
    for checkpoint, kind in ((found, "bert"), (later, "roberta")):
        model, tokenizer = base.load_base(checkpoint)
        assert base.load_config(checkpoint).model_type == model.config.model_type == kind
        own = base.load_tokenizer(base.resolve_checkpoint(tiny(kind)))
        assert tokenizer.get_vocab() == own.get_vocab() == base.load_tokenizer(checkpoint).get_vocab()


def test_the_key_of_a_plan_follows_all_of_it(folder, package, prepared, store):  # noqa: F811
    """What `--skip_finished`, `--resume` and the rows of a study go by."""

    def plan(technique=LORA, data=prepared[1], **args):
        args = RunArgs(model_checkpoint=str(folder), data_dir=str(data), max_length=96, doc_stride=16, **args)
        return planning.plan(technique(), args)

    def key(*args, **fields):
        return plan(*args, **fields).key

    keys = [key()]
    assert key(run_name="other", save_steps=7) == keys[0]
    changed(package / "reports" / "run_figures.py")
    assert key() == keys[0]
    keys += [key(TECHNIQUES["loha"]), key(data=prepared[0]), key(seed=7)]
    flipped(folder / "model.safetensors")
    keys.append(key())
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes() + b"\n")
    keys.append(key())
    changed(package / "tasks" / "table.py")
    keys.append(key())
    planned = plan()
    assert planned.inputs == {"settings": planned.settings, "content": planned.content}
    assert run_fingerprint(planned.settings, **planned.content) == planned.key
    assert len(set(keys)) == len(keys)
