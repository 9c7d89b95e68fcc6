"""Each shipped study's smoke variant, from nothing to its report, as `scripts/study.py STUDY --smoke` runs it."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from common.paths import ROOT

STUDIES = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / "studies").glob("*.yaml")
}
# Searches need Ray: test_study_ray.py has them.
STUDIES = {name: content for name, content in STUDIES.items() if "search" not in str(content.get("stages"))}


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_the_smoke_variant_runs_to_its_report(name, tmp_path):
    content = STUDIES[name]
    content["smoke"]["base"]["data_dir"] = str(tmp_path / "data")
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, ROOT / "scripts" / "study.py", file, "--smoke", "--output_dir", tmp_path]
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = tmp_path / f"{name}-smoke"
    rows = pd.read_csv(folder / "study.csv")
    assert set(rows["status"]) == {"finished"}
    assert len(list(folder.rglob("metrics.json"))) == len(rows)
    for history in folder.rglob("log_history.json"):
        assert json.loads(history.read_text())
    assert (folder / "report.md").read_text().startswith("# ")
    assert list(folder.glob("**/*.png"))
