import subprocess
import sys

import pytest

from common.cli import guarded
from common.errors import UserError
from common.paths import ROOT
from common.training.command_line import parse
from tests.support.techniques import TECHNIQUES

LORA = TECHNIQUES["lora"]


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("r: 4\nlearning_rate: 2e-3\nbatch_size: 8\nresume: true\nmax_train_samples:\n")
    technique, args = parse(LORA, ["--config", str(file), "--r", "2"])
    assert (technique.r, technique.learning_rate, args.batch_size, args.resume) == (2, 2e-3, 8, True)
    assert args.max_train_samples is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rank: 4", "'rank' is no field of LoRA"),
        ("r: many", "invalid int value"),
        ("- r", "name: value"),
        ("r: [", "neither YAML nor JSON"),
        ("r: {a: 1}", "single value"),
    ],
)
def test_a_bad_file_is_named(content, message, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        parse(LORA, ["--config", str(file)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rank", "4"], "unknown argument --rank"),
        (["--r", "x"], "invalid int"),
        (["--config", "nowhere.yaml"], "No such file"),
    ],
)
def test_a_bad_command_line_is_one_line(argv, message):
    with pytest.raises(UserError, match=message):
        parse(LORA, argv)


def test_exit_codes(capsys):
    def mistake():
        raise UserError("file f: do g")

    def interrupted():
        raise KeyboardInterrupt

    assert guarded(mistake) == 2
    assert capsys.readouterr().err == "error: file f: do g\n"
    assert guarded(interrupted) == 130
    assert guarded(lambda: None) == 0


def test_imported_modules_are_left_to_no_garbage_collection():
    """Neither while they are imported, nor in a full collection afterwards, also where an import fails."""
    body = (
        "import gc\n"
        "from common.cli import importing\n"
        "seen, least = [], gc.get_threshold()[0]\n"
        "gc.collect()\n"
        "gc.callbacks.append(lambda phase, about: seen.append(phase))\n"
        "with importing():\n"
        "    import json, decimal\n"
        "    kept = [[] for _ in range(10 * least)]\n"
        "assert not seen and gc.isenabled() and gc.get_freeze_count() > 10 * least\n"
        "frozen = gc.get_freeze_count()\n"
        "more = [[] for _ in range(10 * least)]\n"
        "with importing():\n"
        "    import json\n"
        "assert seen and gc.get_freeze_count() == frozen, 'nothing was imported'\n"
        "try:\n"
        "    with importing():\n"
        "        import there_is_no_such_module\n"
        "except ModuleNotFoundError:\n"
        "    assert gc.isenabled()\n"
    )
    done = subprocess.run([sys.executable, "-c", body], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
