"""Nothing that is read runs code: weights are safetensors, or pickles that may hold tensors alone."""

import ast
import os
import pickle
import shutil

import pytest

from common import models
from common.errors import UserError
from common.paths import ROOT


def test_no_module_reads_pickles():
    """Neither by itself nor through torch, numpy, pandas or joblib."""
    loading = {"pickle.load", "pickle.loads", "torch.load", "joblib.load", "pd.read_pickle", "dill.load"}
    for file in [*ROOT.glob("common/*.py"), *ROOT.glob("scripts/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in loading, f"{file}:{node.lineno}"
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle", "False") == "False", f"{file}:{node.lineno}"
                assert given.get("weights_only", "True") == "True", f"{file}:{node.lineno}"
                assert "trust_remote_code" not in given, f"{file}:{node.lineno}"


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
        models.load_base(models.resolve_checkpoint(str(folder)))
    assert not (tmp_path / "exploded").exists()
