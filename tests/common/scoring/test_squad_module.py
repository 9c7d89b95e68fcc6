"""The `evaluate` module, loaded by its path from elsewhere, without a hub."""

import json
import os
import subprocess
import sys

import pytest

from common.paths import ROOT
from common.scoring.squad import squad_scores

PROGRAM = """
import json, sys
import evaluate
given = json.load(sys.stdin)
plain = evaluate.load(given["path"]).compute(predictions=given["v1"], references=given["answerable"])
metric = evaluate.load(given["path"], "v2.0")
german = evaluate.load(given["path"]).compute(language="de", **given["german"])
strict = metric.compute(predictions=given["v2"], references=given["references"], no_answer_threshold=0.5)
print(json.dumps([plain, strict, german]))
"""


@pytest.mark.long
def test_loads_offline_from_any_directory_and_scores_alike(tmp_path):
    texts = {"1": "the cat", "2": "dog", "3": ""}
    odds = {"1": 0.1, "2": 0.7, "3": 0.9}
    golds = {"1": ["Cat!", "a dog"], "2": ["dog house"], "3": []}
    references = [
        {"id": id_, "answers": {"text": gold, "answer_start": [0] * len(gold)}} for id_, gold in golds.items()
    ]
    given = {
        "path": str(ROOT / "common" / "scoring" / "squad_module.py"),
        "v1": [{"id": id_, "prediction_text": texts[id_]} for id_ in ("1", "2")],
        "v2": [
            {"id": id_, "prediction_text": text, "no_answer_probability": odds[id_]}
            for id_, text in texts.items()
        ],
        "german": {
            "predictions": [{"id": "1", "prediction_text": "die „Donau“"}],
            "references": [{"id": "1", "answers": {"text": ["Donau"], "answer_start": [0]}}],
        },
        "answerable": references[:2],
        "references": references,
    }
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, strict, german = json.loads(done.stdout)
    assert plain == squad_scores(texts, references[:2], "v1.1")
    assert strict == squad_scores(texts, references, "v2.0", odds, 0.5)
    assert german == {"exact_match": 100.0, "f1": 100.0}
