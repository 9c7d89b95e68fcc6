"""Run a study: every row of a YAML file that declares techniques, grids, seeds and stages, each row in its own process.

  python scripts/study.py studies/bert_six_techniques.yaml --dry_run    # the rows, what is done, the time that is left
  python scripts/study.py studies/bert_six_techniques.yaml --smoke      # minutes on two cores: shows that it runs
  python scripts/study.py studies/bert_six_techniques.yaml

The rows are children of one MLflow run. Finished rows are never trained again, whoever trained them; an interrupted study
goes on where it was. results/STUDY/ holds study.csv, the report, and what each row left.
"""

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import _path  # noqa: F401
from _techniques import technique_scripts

from common import studies
from common.cli import guarded
from common.paths import ROOT
from common.study_folder import Folder
from common.tasks import LABELS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="what to run; studies/ holds some")
    parser.add_argument("--smoke", action="store_true", help="with the file's `smoke` section laid over it")
    parser.add_argument("--dry_run", action="store_true", help="show the rows and train nothing")
    parser.add_argument("--retry_failed", action="store_true", help="run rows that have failed again")
    parser.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        default=ROOT / "results",
        help="where the folder of the study goes (default: results/ in the project)",
    )
    args = parser.parse_args()
    scripts = technique_scripts()
    study = studies.read(args.study, {key: kind for key, (kind, _) in scripts.items()}, args.smoke)

    from common import tracking
    from common.study_status import Status

    tracking.configure()
    status = Status(study, Folder(args.output_dir / study.name))
    status.check()
    if args.dry_run:
        return show(status)
    with status.folder.held():
        # It may have changed while it was waited for.
        status.folder.load()
        runner = Runner(status, {key: file for key, (_, file) in scripts.items()}, args.retry_failed)
        try:
            failed = runner.go()
        except (KeyboardInterrupt, SystemExit):
            print(f"\nStopped. To go on: {shlex.join(['python', *sys.argv])}", file=sys.stderr)
            raise
    if failed:
        print(f"\n{failed}", file=sys.stderr)
        sys.exit(1)


def show(status) -> None:
    """The rows, what is done and the time that is left."""
    from common.study_results import as_text, failures

    entries = status.survey()
    done = sum(entry.status == "finished" for entry in entries)
    print(f"{status.study.name}: {status.study.description}\n\n{as_text(status, entries)}\n")
    print(f"{done} of {len(entries)} rows are finished; training time left: {time_left(status, entries)}.")
    if failed := failures(entries):
        print(failed)


def time_left(status, entries) -> str:
    from common.study_results import clock

    seconds = status.seconds_left(entries)
    return "unknown" if seconds is None else f"about {clock(seconds)}"


class RowsFailed(Exception):
    """Some rows of a study have failed; all others are done."""


class Runner:
    """Carries a study out: rows that are left are trained one after another, then what all left is told."""

    def __init__(self, status, scripts: dict[str, Path], retry_failed: bool):
        self.status, self.folder, self.study = status, status.folder, status.study
        self.scripts, self.retry_failed = scripts, retry_failed
        self.started = time.monotonic()
        self.position, self.total, self.parent = 0, 0, None

    def go(self) -> str:
        """Run what is left, report, and tell of the rows that failed; "" if none did."""
        from common import study_results, tracking

        entries = self.status.survey()
        again = self.retry_failed and any(entry.status == "failed" for entry in entries)
        if not again and self.folder.state.get("told") == told(entries):
            print(f"{self.study.name}: nothing to do.\n\n{study_results.as_text(self.status, entries)}\n")
            print(f"The report is in {self.folder.path}.")
            return study_results.failures(entries)
        parent = self.folder.state.get("parent_run")
        if parent and tracking.told(parent) is None:
            # It was deleted, or the store is another one.
            parent = None
        experiment = self.status.plan(entries[0].row).args.experiment_name
        tags = {"study": self.study.name}
        try:
            with tracking.start(experiment, self.study.name, tags, parent) as run:
                self.parent, self.total = run.id, len(entries)
                self.folder.state["parent_run"] = run.id
                self.folder.save()
                run.log_text(Path(self.study.file).read_text(encoding="utf-8"), "study.yaml")
                entries = self.status.survey(lambda stage: [self.carry_out(entry) for entry in stage])
                files = study_results.write(self.status, entries, run.id, reporter())
                for file in files:
                    inside = file.parent.relative_to(self.folder.path)
                    run.log_artifact(file, str(inside) if inside.parts else None)
                self.folder.state["told"] = told(entries)
                self.folder.save()
                print(f"\n{study_results.as_text(self.status, entries)}\n")
                for sentence in study_results.edges(self.status, entries):
                    print(f"At the edge of the grid: {sentence}")
                print(f"Written to {self.folder.path}: {', '.join(file.name for file in files)}")
                if failed := study_results.failures(entries):
                    raise RowsFailed(failed)
        except RowsFailed as error:
            return str(error)
        return ""

    def carry_out(self, entry):
        """Train a row unless that is done, and keep what it left; what has become of it."""
        from common.study_results import collect

        self.position += 1
        if entry.status == "pending" or entry.status == "failed" and self.retry_failed:
            self.train(entry.row)
            entry = self.status.look(entry.row)
            self.tell(entry)
        if entry.status == "finished":
            note = {"name": entry.row.name, "status": "finished", "run_id": entry.run_id}
            self.folder.state["rows"][self.status.plan(entry.row).key] = note
            collect(self.folder.row(entry.row.name), entry)
        self.folder.save()
        return entry

    def train(self, row: studies.Row) -> None:
        """Run a row's script to its end; should it leave no finished run, the study's notes say why."""
        import yaml

        from common import tracking
        from common.workspace import STATE

        planned, folder = self.status.plan(row), self.folder.row(row.name)
        print(f"{self.place(row)}: training; it writes to {self.folder.log(row.name)}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        begun = Path(planned.args.output_dir) / STATE
        run_id = _run_id(begun) if begun.is_file() else None
        if run_id and tracking.told(run_id) is None:
            # It was deleted, or the store is another one: there is nothing to go on with.
            shutil.rmtree(begun.parent)
        fields = dataclasses.asdict(row.technique) | dataclasses.asdict(planned.args)
        fields |= {"run_name": row.name, "resume": None, "skip_finished": None, "parent_run": None}
        fields = {name: value for name, value in fields.items() if value is not None}
        (folder / "row.yaml").write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
        script = [sys.executable, str(self.scripts[row.technique.key]), "--config", str(folder / "row.yaml")]
        code, why = self.folder.run(
            [*script, "--resume", "--skip_finished", "--parent_run", self.parent], row.name
        )
        why = why or "it left no finished run of this content: was the code or the data changed meanwhile?"
        self.folder.state["rows"][planned.key] = {"name": row.name, "status": "failed", "reason": why}
        if code < 0 and begun.is_file():
            # It had no time to say how it ended.
            tracking.fail(_run_id(begun), why)

    def tell(self, entry) -> None:
        """A line about a row that has just ended, and the time that is left."""
        from common.study_results import clock

        about, metric = f"FAILED: {entry.reason}", self.status.task.metric
        if entry.status == "finished":
            found, label = entry.metrics, LABELS[metric]
            about = f"validation {label} {found[f'best_validation_{metric}']:.1f}, test {label} {found[f'test_{metric}']:.1f}"
            about += f", trained in {clock(found['training_seconds'])}"
        passed, left = (
            clock(time.monotonic() - self.started),
            time_left(self.status, self.status.survey()),
        )
        print(f"{self.place(entry.row)}: {about}; {passed} passed, left {left}", flush=True)

    def place(self, row: studies.Row) -> str:
        return f"[{self.position}/{self.total}] {row.name}"


def _run_id(state: Path) -> str | None:
    return json.loads(state.read_text(encoding="utf-8")).get("run_id")


def reporter():
    """What writes the report."""
    from common.report import write_report

    return write_report


def told(entries) -> list[list]:
    """What a report is made of: the same rows with the same runs need no other."""
    return [[entry.row.name, entry.status, entry.run_id] for entry in entries]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(guarded(main))
