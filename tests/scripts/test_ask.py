"""What a registered model is asked, and what is said where there is none."""

import importlib
import sys

import pytest

from common.errors import UserError
from common.paths import ROOT
from common.tracking.store import configure
from tests.scripts.conftest import call_script

sys.path.append(str(ROOT / "scripts"))
ask = importlib.import_module("ask")


def test_without_a_model_it_says_how_to_get_one(store):
    done = call_script("ask.py", "Who?")
    assert done.returncode == 2 and "register_best.py" in done.stderr


@pytest.mark.parametrize(
    "uri", ("http://127.0.0.1:1/x", "s3://bucket/key", "gs://b", "/tmp", "models:/", "runs:/0/model", "")
)
def test_a_model_that_cannot_be_found_is_one_line(uri, monkeypatch, tmp_path, store):
    configure()
    with pytest.raises(UserError) as refused:
        monkeypatch.setattr(sys, "argv", ["ask.py", "--model", uri])
        ask.main()
    assert uri in str(refused.value) and "\n" not in str(refused.value)


def test_a_wrong_flag_of_any_script_is_one_line():
    for script in sorted((ROOT / "scripts").glob("[a-z]*.py")):
        done = call_script(script.name, "--no_such_flag")
        (said,) = done.stderr.splitlines()
        assert done.returncode == 2 and "usage" not in said and said.endswith("lists the flags."), said


def test_every_script_explains_itself():
    for script in sorted((ROOT / "scripts").glob("[a-z]*.py")):
        text = call_script(script.name, "--help").stdout
        assert "usage:" in text and len(text) > 200, script
