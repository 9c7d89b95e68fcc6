"""What a fresh process gives; whether its answers are those of training is tested in test_registry.py."""

import pytest

from common.paths import ROOT
from common.registry import checking

MODEL = """
import os, sys
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Where(PythonModel):
    def predict(self, context, model_input, params=None):
        print("models may print")
        import huggingface_hub.constants
        seen = {
            "offline": huggingface_hub.constants.HF_HUB_OFFLINE,
            "cached": os.path.exists(huggingface_hub.constants.HF_HUB_CACHE),
            "project": any(os.path.exists(os.path.join(place, "common", "registry")) for place in sys.path)
            or "checking" in sys.modules,
            "asked": model_input["question"][0],
        }
        return pd.DataFrame([seen])

set_model(Where())
"""


def test_a_fresh_process_has_neither_the_hub_nor_its_cache_nor_this_package(tmp_path, monkeypatch):
    import mlflow

    # As a shell has it in which somebody works on the project.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    (tmp_path / "model.py").write_text(MODEL)
    mlflow.pyfunc.save_model(tmp_path / "saved", python_model=str(tmp_path / "model.py"), pip_requirements=[])
    found = checking.in_fresh_process(tmp_path / "saved", [{"question": "a"}, {"question": "é"}])
    seen = {"offline": True, "cached": False, "project": False}
    assert found["answers"] == [seen | {"asked": "a"}, seen | {"asked": "é"}]
    assert len(found["latencies"]) == 20 and all(ms > 0 for ms in found["latencies"]) and found["loading"] > 0


def test_what_does_not_load_says_why(tmp_path):
    with pytest.raises(checking.Unloadable, match="nowhere"):
        checking.in_fresh_process(tmp_path / "nowhere", [{"question": "a"}])


def test_a_model_is_not_asked_a_part_of_a_record(tmp_path, monkeypatch):
    import mlflow
    import pandas as pd

    from common.registry import fresh_process

    (tmp_path / "model.py").write_text(MODEL)
    signature = mlflow.models.infer_signature(pd.DataFrame([{"question": "a"}]))
    mlflow.pyfunc.save_model(
        tmp_path / "saved",
        python_model=str(tmp_path / "model.py"),
        pip_requirements=[],
        signature=signature,
    )
    monkeypatch.setattr(fresh_process, "LEAST", 1)
    for asked, other in (({"question": "a", "more": "b"}, "question and more"), ({"text": "a"}, "text")):
        with pytest.raises(ValueError, match=f"it takes question, not {other}"):
            fresh_process.ask(str(tmp_path / "saved"), [{"question": "a"}, asked])
    assert fresh_process.ask(str(tmp_path / "saved"), [{"question": "a"}])["answers"][0]["asked"] == "a"
