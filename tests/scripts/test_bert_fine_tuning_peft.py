"""A method of PEFT by file, from the command line to a served answer."""

import json

import mlflow
import pytest

from common.api import fit
from common.errors import UserError
from common.registry import register
from common.studies import declaration
from tests.scripts.conftest import SMALL, a_question, call_script, runs, train
from tests.support.server import post, served
from tests.support.techniques import TECHNIQUES

SCRIPT = "bert_fine_tuning_peft.py"


@pytest.fixture
def miss(tmp_path):
    file = tmp_path / "miss.yaml"
    file.write_text("peft_type: MISS\nr: 4\n")
    return file


@pytest.mark.long
def test_a_file_trains_registers_and_serves(tiny, prepared, store, miss, tmp_path):
    flags = ("--peft_config", miss, "--learning_rate", "1e-2", "--experiment_name", "by-file")
    done = train(SCRIPT, tiny, prepared[0], *flags)
    (run,) = runs()
    assert run.data.tags["technique"] == "PEFT MISS" and "PEFT MISS on" in done.stdout
    assert json.loads(run.data.params["peft_config"]) == {"peft_type": "MISS", "r": 4}
    assert str(miss) not in str(run.data.params)
    # The same content in another file is the same run.
    other = tmp_path / "other.json"
    other.write_text('{"r": 4, "peft_type": "MISS"}')
    again = train(SCRIPT, tiny, prepared[0], "--peft_config", other, *flags[2:], "--skip_finished")
    assert "nothing to do" in again.stdout and len(runs()) == 1

    version = register.register_best("by-file")
    recorded = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    asked, expected = a_question(prepared[0], recorded)
    with served(tmp_path, f"models:/bert-squad-qa/{version.version}") as (address, _, _):
        status, text = post(address, {"inputs": [asked]})
    assert status == 200 and json.loads(text)["predictions"][0]["answer"] == expected


def test_faults_leave_before_anything_is_loaded(tiny, prepared, store, tmp_path):
    file = tmp_path / "faulty.yaml"
    where = ("--data_dir", prepared[0], "--model_checkpoint", tiny("bert"), *SMALL)
    for content, message in (
        ("peft_type: MISS\nmiss_drop: 0.1\n", "'miss_drop' is no field of MISS; did you mean miss_dropout?"),
        ("peft_type: XLORA\n", "XLORA cannot be trained here"),
        ("peft_type: C3A\nblock_size: 7\n", "C3A on this bert model: PEFT refuses these values"),
    ):
        file.write_text(content)
        done = call_script(SCRIPT, *where, "--peft_config", file)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    done = call_script(SCRIPT, *where)
    assert done.returncode == 2 and "--peft_config is missing" in done.stderr
    assert not runs()


def test_a_studys_rows_hold_the_content(miss):
    content = {
        "name": "s",
        "description": "d",
        "techniques": {"peft": {"peft_config": str(miss), "grid": {"learning_rate": [1e-3, 1e-2]}}},
    }
    study = declaration.parse(content, "s.yaml", TECHNIQUES)
    rows = declaration.expand(study, study.stages[0], lambda *_: 10)
    assert [row.technique.name for row in rows] == ["PEFT MISS"] * 2
    assert {row.technique.peft_config for row in rows} == {'{"peft_type": "MISS", "r": 4}'}


def test_a_studys_faulty_file_is_named(tmp_path):
    file = tmp_path / "faulty.yaml"
    file.write_text("peft_type: MISS\nrr: 2\n")
    content = {"name": "s", "description": "d", "techniques": {"peft": {"peft_config": str(file)}}}
    study = declaration.parse(content, "s.yaml", TECHNIQUES)
    with pytest.raises(UserError, match=r"s.yaml, row .*faulty.yaml: 'rr' is no field of MISS"):
        declaration.expand(study, study.stages[0], lambda *_: 10)


def test_python_gives_the_content_itself(monkeypatch):
    from common.training import fit as training

    calls = []
    monkeypatch.setattr(training, "fit", lambda technique, args, again: calls.append((technique, again)))
    fit("peft", peft_config={"peft_type": "MISS", "r": 4})
    ((technique, again),) = calls
    assert technique.peft_config == '{"peft_type": "MISS", "r": 4}'
    assert again.startswith("fit('peft', peft_config={'peft_type': 'MISS', 'r': 4}")
