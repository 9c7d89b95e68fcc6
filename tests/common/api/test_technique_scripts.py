"""Which techniques Python finds: those that have a script."""

import sys

import pytest

from common.api.technique_scripts import technique_of, technique_scripts, techniques
from common.errors import UserError
from common.training.settings import Technique
from tests.support.techniques import SCRIPTS, TECHNIQUES


def test_each_script_declares_one():
    found = technique_scripts()
    assert sorted(file for _, file in found.values()) == SCRIPTS
    assert {key: kind.name for key, kind in techniques().items()} == {
        key: kind.name for key, kind in TECHNIQUES.items()
    }


def test_a_script_cannot_replace_the_process(tmp_path):
    """Scripts import `_path` first, which starts another interpreter where packages are missing."""
    (tmp_path / "_path.py").write_text("raise SystemExit('started again')")
    (tmp_path / "bert_fine_tuning_x.py").write_text(
        "import _path\nfrom common.training.settings import Technique\n"
        "class X(Technique):\n    name, key = 'X', 'x'\n"
    )
    before = sys.modules.get("_path")
    assert list(technique_scripts(tmp_path)) == ["x"]
    assert sys.modules.get("_path") is before


def test_a_key_or_a_class_names_one():
    lora = technique_of("LoRA")
    assert lora.key == "lora" and technique_of(lora) is lora
    for wrong in ("lorax", "", Technique, str, 3):
        with pytest.raises(UserError, match="not a technique: choose one of"):
            technique_of(wrong)
