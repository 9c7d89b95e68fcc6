"""Each shipped study's smoke variant, from nothing to its report, as `scripts/study.py STUDY --smoke` runs it."""

import json

import pandas as pd
import pytest
import yaml

from common.paths import ROOT
from tests.scripts.conftest import call_script

STUDIES = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (ROOT / "studies").glob("*.yaml")
}
# Searches need Ray: test_study_ray.py has them.
STUDIES = {name: content for name, content in STUDIES.items() if "search" not in str(content.get("stages"))}


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_the_smoke_variant_runs_to_its_report(name, tiny, store, tmp_path):
    content = STUDIES[name]
    content["smoke"]["base"]["data_dir"] = str(tmp_path / "data")
    if content["smoke"]["base"].get("model_checkpoint") == "embedded":
        # The packaged model would take most of the time; the study that is on its DistilBERT has it.
        content["smoke"]["base"] |= {"model_checkpoint": tiny("bert"), "max_length": 64, "doc_stride": 16}
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    # Its rows are processes of their own all the same.
    done = call_script("study.py", file, "--smoke", "--output_dir", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = tmp_path / f"{name}-smoke"
    rows = pd.read_csv(folder / "study.csv")
    assert set(rows["status"]) == {"finished"}
    assert len(list(folder.rglob("metrics.json"))) == len(rows)
    for history in folder.rglob("log_history.json"):
        assert json.loads(history.read_text())
    assert (folder / "report.md").read_text().startswith("# ")
    assert list(folder.glob("**/*.png"))
