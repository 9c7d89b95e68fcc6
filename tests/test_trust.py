"""Nothing that is read runs code: weights are safetensors, or pickles that may hold tensors alone."""

import ast
import json
import os
import pickle
import shutil

import pytest

from common.errors import UserError
from common.models import base
from common.paths import ROOT


def sources(*folders):
    """The Python files of folders of the project, none of which is empty."""
    found = {folder: sorted(ROOT.joinpath(folder).rglob("*.py")) for folder in folders}
    assert all(len(files) > 10 for files in found.values())
    return [file for files in found.values() for file in files]


def test_no_module_reads_pickles():
    """Neither by itself nor through torch, numpy, pandas or joblib."""
    loading = {"pickle.load", "pickle.loads", "torch.load", "joblib.load", "pd.read_pickle", "dill.load"}
    for file in sources("common", "scripts"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in loading, f"{file}:{node.lineno}"
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle", "False") == "False", f"{file}:{node.lineno}"
                assert given.get("weights_only", "True") == "True", f"{file}:{node.lineno}"


OWN = {"PeftConfig", "PeftModel", "PromptModel", "QuestionAnswerer", "torch.nn.Embedding", "nn.Embedding"}
"""What else has a `from_pretrained`: it reads tensors and figures alone, or is this library's own."""


def test_transformers_is_nowhere_allowed_to_run_code_of_a_checkpoint():
    """Without the argument it asks "[y/N]" on the terminal."""
    seen = 0
    for file in sources("common", "scripts", "benchmarks"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            # Called by itself, or handed to what calls it, like `quietly`.
            for part in (node.func, *node.args[:1]):
                if isinstance(part, ast.Attribute) and part.attr in ("from_pretrained", "from_config"):
                    if ast.unparse(part.value) not in OWN:
                        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                        assert given.get("trust_remote_code") == "False", f"{file}:{node.lineno}"
                        seen += 1
    assert seen >= 8


@pytest.mark.parametrize("model_type", ["bert", "foreign"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_planted_auto_map_never_runs_and_is_refused(file, model_type, tiny, tmp_path, monkeypatch):
    def asked(*_):
        raise AssertionError("asked on the terminal")

    monkeypatch.setattr("builtins.input", asked)
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny("bert"), folder)
    (folder / "planted.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'exploded')!r})\n")
    names = {
        "config.json": ["AutoConfig", "AutoModelForQuestionAnswering"],
        "tokenizer_config.json": ["AutoTokenizer"],
    }
    content = json.loads((folder / file).read_text())
    content["auto_map"] = {name: "planted.Anything" for name in names[file]}
    (folder / file).write_text(json.dumps(content))
    config = json.loads((folder / "config.json").read_text()) | {"model_type": model_type}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = base.resolve_checkpoint(str(folder))
    for load in (base.load_config, base.load_base):
        with pytest.raises(UserError, match=rf"^--model_checkpoint .*{file} names code of its own") as caught:
            load(checkpoint)
        assert "\n" not in str(caught.value)
    # What is loaded without the files' check, as from the hub.
    monkeypatch.setattr(base, "check_files", lambda name, folder: None)
    with pytest.raises(UserError):
        base.load_base(checkpoint)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_file_that_was_cut_off_is_named(file, tiny, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny("bert"), folder)
    content = (folder / file).read_bytes()
    for left in (0, 10, len(content) // 2, len(content) - 2):
        (folder / file).write_bytes(content[:left])
        with pytest.raises(UserError, match=rf"^--model_checkpoint .*: {file} is damaged") as caught:
            base.load_base(base.resolve_checkpoint(str(folder)))
        assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "exploded"),)


def test_a_checkpoint_of_pickles_that_would_run_code_is_refused(tiny, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny("bert"), folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bomb(tmp_path)}))
    with pytest.raises(UserError, match="--model_checkpoint .*could run code"):
        base.load_base(base.resolve_checkpoint(str(folder)))
    assert not (tmp_path / "exploded").exists()
