"""scripts/study.py as a function, with its rows in threads of this process."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from common.errors import UserError
from common.paths import ROOT
from common.reports import study_report
from common.studies.folder import Folder
from common.training import command_line
from common.training.fit import fit
from tests.support.techniques import TECHNIQUES


def load_script():
    """scripts/study.py as a module."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("study_script", ROOT / "scripts" / "study.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


SCRIPT = load_script()


class StudyCommand:
    """The command of a study: calling it gives the exit code; `trained` is what the last call trained, `reported` what each
    report was given."""

    def __init__(self, content, folder, patch):
        self.folder = folder
        self.trained, self.reported = [], []
        self.file = folder / "small.yaml"
        self.write(content)
        patch.setattr(study_report, "write_report", self._report)
        patch.setattr(Folder, "run", self._train)
        self.results = folder / "results" / "small"

    def write(self, content):
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))

    def _report(self, folder, study, runs, histories, scores, gradients=None):
        self.reported.append((study, runs, histories, scores, gradients))
        (folder / "report.md").write_text("reported")
        return [folder / "report.md"]

    def _train(self, command, name, start):
        technique = next(k for k in TECHNIQUES.values() if command[0].endswith(_script(k)))
        self.trained.append(name)
        # MLflow's active run, the parent, is this thread's.
        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(lambda: fit(*command_line.parse(technique, command[1:]))).result()
            except UserError as error:
                return 2, str(error)
            except ValueError as error:
                return 1, f"ValueError: {error}"
        return 0, ""

    def __call__(self, *flags):
        arguments = ["study.py", str(self.file), "--output_dir", str(self.folder / "results"), *flags]
        self.trained.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            try:
                SCRIPT.main()
            except SystemExit as left:
                return left.code
        return 0


def _script(technique):
    return sys.modules[technique.__module__].__file__.rsplit("/", 1)[-1]
