"""docs/quickstart.ipynb is docs/PYTHON.md as a notebook, and runs from its first cell to its last."""

import importlib.util
import shutil
import subprocess
import sys

import nbformat
import pytest

from common.paths import ROOT

SPEC = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "notebook.py")
generator = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generator)
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_is_that_of_the_page():
    page = (ROOT / "docs/PYTHON.md").read_text()
    assert generator.notebook(page) == NOTEBOOK.read_text(), "run: make notebook"
    assert generator.notebook(page.replace('fit("lora"', 'fit("loha"')) != NOTEBOOK.read_text()


def test_it_holds_the_pages_code_and_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    setup, *code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "sys.path" in setup.source
    blocks = generator.BLOCK.findall((ROOT / "docs/PYTHON.md").read_text())
    assert len(blocks) > 3 and [cell.source for cell in code] == [block.strip() for block in blocks]
    assert not any(cell.outputs or cell.execution_count for cell in [setup, *code])


def test_the_command_says_whether_it_is_up_to_date(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(generator, "NOTEBOOK", tmp_path / "quickstart.ipynb")
    monkeypatch.setattr(sys, "argv", ["notebook.py", "--check"])
    with pytest.raises(SystemExit, match="1"):
        generator.main()
    assert "run `make notebook`" in capsys.readouterr().err and not any(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["notebook.py"])
    generator.main()
    assert (tmp_path / "quickstart.ipynb").read_text() == NOTEBOOK.read_text()


@pytest.mark.long
def test_it_runs_in_a_fresh_project(tmp_path, monkeypatch):
    """As in Jupyter, which starts in the notebook's folder; with the packaged model and sample, offline."""
    from nbclient import NotebookClient

    project = tmp_path / "project"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Kernels of this environment alone: a user may have others by the same name.
    monkeypatch.setenv("JUPYTER_PATH", f"{sys.prefix}/share/jupyter")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(project / "docs" / "quickstart.ipynb", as_version=4)
    resources = {"metadata": {"path": project / "docs"}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    _, run, compared, answer, as_pipeline, _ = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [
        [output.get("data", {}) for output in cell.outputs] for cell in (run, compared, answer, as_pipeline)
    ]
    assert any("LoRA" in data.get("text/html", "") for data in shown[0])
    assert any("<table" in (html := data.get("text/html", "")) and "IA3" in html for data in shown[1])
    # What so short a training answers does not matter.
    assert any(
        "'answer'" in (text := data.get("text/plain", "")) and "'alternatives'" in text for data in shown[2]
    )
    assert any("'score'" in (text := data.get("text/plain", "")) and "'start'" in text for data in shown[3])
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert not errors
    assert (
        (project / "mlflow.db").is_file()
        and (project / "my_data").is_dir()
        and (project / "squad_data").is_dir()
    )
    assert not (project / "docs" / "my_data").exists()
