"""Run a study: every row of a YAML file that declares techniques, grids, seeds and stages, each row in its own process.

  python scripts/study.py studies/bert_six_techniques.yaml --dry_run    # the rows, what is done, the time that is left
  python scripts/study.py studies/bert_six_techniques.yaml --smoke      # minutes on two cores: shows that it runs
  python scripts/study.py studies/bert_six_techniques.yaml
  python scripts/study.py studies/lora_search.yaml --backend ray        # searches, stops bad trials early
  python scripts/study.py studies/lora_search.yaml --backend ray --address HEAD:6379      # on many machines

The rows are children of one MLflow run. Finished rows are never trained again, whoever trained them; an interrupted study
goes on where it was. results/STUDY/ holds study.csv, the report, and what each row left.

`--backend ray` (pip install -r requirements-ray.txt) trains as many rows at a time as there is room for, on this machine or
on the Ray cluster at --address: each asks for the `resources` of its stage. All machines see this folder and the results
under the same path, and reach one MLflow store (MLFLOW_TRACKING_URI). A row whose worker dies goes on from its last
checkpoint on another one.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import dataclasses
import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from _techniques import technique_scripts

from common.cli import Parser, guarded
from common.errors import UserError
from common.paths import ROOT, interpreter
from common.scoring.names import LABELS
from common.studies import declaration
from common.studies.folder import Folder
from common.studies.row_starter import Starter


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument(
        "--backend",
        choices=("local", "ray"),
        default="local",
        help="local: one row after another (default); ray: Ray Tune, as many at a time as there is room for",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="Ray cluster to use; default: Ray is started on this machine"
    )
    args = parser.parse_args()
    scripts = technique_scripts()
    study = declaration.read(args.study, {key: kind for key, (kind, _) in scripts.items()}, args.smoke)

    check_backend(study, args)
    from common.studies.status import Status
    from common.tracking import store

    store.configure()
    status = Status(study, Folder(args.output_dir / study.name), only_show=args.dry_run)
    status.check()
    if args.dry_run:
        return show(status)
    with status.folder.held():
        # It may have changed while it was waited for.
        status.folder.load()
        files = {key: file for key, (_, file) in scripts.items()}
        if args.backend == "ray":
            runner = RayRunner(status, files, args.retry_failed, args.address)
        else:
            runner = Runner(status, files, args.retry_failed)
        try:
            failed = runner.go()
        except (KeyboardInterrupt, SystemExit):
            print(f"\nStopped. To go on: {shlex.join([interpreter(), *sys.argv])}", file=sys.stderr)
            raise
    if failed:
        print(f"\n{failed}", file=sys.stderr)
        sys.exit(1)


def check_backend(study: declaration.Study, args) -> None:
    """Refuse what the backend cannot do."""
    if args.backend != "ray":
        if args.address:
            raise UserError("--address is for --backend ray.")
        if study.asks_for_ray and not args.dry_run:
            raise UserError(
                f"{study.file} has a `{study.asks_for_ray}`, which takes --backend ray; it works on this machine alone too."
            )
        return
    missing = [name for name in ("ray", "optuna") if not find_spec(name)]
    if missing:
        raise UserError(
            f"--backend ray needs {' and '.join(missing)}, which is not installed: pip install -r requirements-ray.txt"
        )


def show(status) -> None:
    """The rows, what is done and the time that is left."""
    from common.studies.clock import Clock
    from common.studies.results import overview

    entries = status.survey()
    print(overview(status, entries, Clock(status).left(entries)))


class RowsFailed(Exception):
    """Some rows of a study have failed; all others are done."""


class Runner:
    """Carries a study out: rows that are left are trained one after another, then what all left is told."""

    def __init__(self, status, scripts: dict[str, Path], retry_failed: bool):
        from common.studies.clock import Clock

        self.status, self.folder, self.study = status, status.folder, status.study
        self.scripts, self.retry_failed, self.clock = scripts, retry_failed, Clock(status)
        self.position, self.total, self.parent = 0, 0, None
        self.starter = Starter()

    def go(self) -> str:
        """Run what is left, report, and tell of the rows that failed; "" if none did."""
        from common.studies import results
        from common.tracking import runs

        entries = self.status.survey()
        again = self.retry_failed and any(entry.status == "failed" for entry in entries)
        if not again and self.folder.state.get("told") == told(entries):
            print(f"{self.study.name}: nothing to do.\n\n{results.as_text(self.status, entries)}\n")
            print(f"The report is in {self.folder.path}.")
            return results.failures(entries)
        parent = self.folder.state.get("parent_run")
        if parent and runs.recorded(parent) is None:
            # It was deleted, or the store is another one.
            parent = None
        experiment = self.status.plan(entries[0].row).args.experiment_name
        tags = {"study": self.study.name}
        try:
            with runs.start(experiment, self.study.name, tags, parent) as run:
                self.parent, self.total = run.id, len(entries)
                self.folder.state["parent_run"] = run.id
                self.folder.save()
                run.log_text(Path(self.study.file).read_text(encoding="utf-8"), "study.yaml")
                with self.workers():
                    entries = self.status.survey(self.carry_out_stage)
                files = results.write(self.status, entries, run.id, reporter())
                for file in files:
                    inside = file.parent.relative_to(self.folder.path)
                    run.log_artifact(file, str(inside) if inside.parts else None)
                self.folder.state["told"] = told(entries)
                self.folder.save()
                print(f"\n{results.as_text(self.status, entries)}\n")
                for sentence in results.edges(self.status, entries):
                    print(f"At the edge of the grid: {sentence}")
                print(f"Written to {self.folder.path}: {', '.join(file.name for file in files)}")
                failed = results.failures(entries)
                if failed:
                    raise RowsFailed(failed)
        except RowsFailed as error:
            return str(error)
        finally:
            self.clock.stop_all()
            self.folder.save()
        return ""

    def workers(self):
        """What trains the rows, while it is needed."""
        return self.starter

    def carry_out_stage(self, stage, entries, best):
        """Train what is left of a stage; what has become of its rows."""
        return [self.carry_out(entry) for entry in entries]

    def carry_out(self, entry):
        """Train a row unless that is done, and keep what it left; what has become of it."""
        self.position += 1
        if self.waits(entry):
            self.train(entry.row)
            entry = self.status.look(entry.row)
            self.tell(entry)
        return self.keep(entry)

    def waits(self, entry) -> bool:
        """Whether a row is to be trained."""
        return entry.status == "pending" or entry.status == "failed" and self.retry_failed

    def keep(self, entry):
        """Copy what a finished row left, and note it."""
        from common.studies.results import collect

        if entry.status == "finished":
            note = {"name": entry.row.name, "status": "finished", "run_id": entry.run_id}
            self.folder.state["rows"][self.status.plan(entry.row).key] = note
            collect(self.folder.row(entry.row.name), entry)
        self.folder.save()
        return entry

    def train(self, row: declaration.Row) -> None:
        """Run a row's script to its end; should it leave no finished run, the study's notes say why."""
        print(f"{self.place(row)}: training; it writes to {self.folder.log(row.name)}", flush=True)
        command = self.command(row)
        self.starter.ready()
        self.clock.start(row)
        code, why = self.folder.run(command, row.name, self.starter.start)
        self.clock.stop(row)
        self.note_failure(row, code, why)

    def command(self, row: declaration.Row) -> list[str]:
        """The script and the arguments that train a row, once its folder is ready."""
        import yaml

        from common.tracking import runs

        planned, folder = self.status.plan(row), self.folder.row(row.name)
        folder.mkdir(parents=True, exist_ok=True)
        begun = self.begun(row)
        run_id = _run_id(begun) if begun.is_file() else None
        if run_id and runs.recorded(run_id) is None:
            # It was deleted, or the store is another one: there is nothing to go on with.
            shutil.rmtree(begun.parent)
        if not begun.is_file():
            self.clock.forget(row)
        fields = dataclasses.asdict(row.technique) | dataclasses.asdict(planned.args)
        fields |= {"run_name": row.name, "resume": None, "skip_finished": None, "parent_run": None}
        fields = {name: value for name, value in fields.items() if value is not None}
        (folder / "row.yaml").write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
        script = [str(self.scripts[row.technique.key]), "--config", str(folder.resolve() / "row.yaml")]
        return [*script, "--resume", "--skip_finished", "--parent_run", self.parent]

    def begun(self, row: declaration.Row) -> Path:
        """What an unfinished run of a row has left."""
        from common.training.run_folder import STATE

        return Path(self.status.plan(row).args.output_dir) / STATE

    def note_failure(self, row: declaration.Row, code: int | None, why: str) -> None:
        """Note that a row has failed; that it has finished is for the store to tell."""
        from common.tracking import runs

        why = why or "it left no finished run of this content: was the code or the data changed meanwhile?"
        note = {"name": row.name, "status": "failed", "reason": why}
        self.folder.state["rows"][self.status.plan(row).key] = note
        begun = self.begun(row)
        run_id = _run_id(begun) if (code is None or code < 0) and begun.is_file() else None
        if run_id:
            # It had no time to say how it ended.
            runs.fail(run_id, why)

    def tell(self, entry) -> None:
        """A line about a row that has just ended, and the time that is left."""
        from common.durations import clock

        about, metric = f"FAILED: {entry.reason}", self.status.task.metric
        if entry.status == "finished":
            found, label = entry.metrics, LABELS[metric]
            about = f"validation {label} {found[f'best_validation_{metric}']:.1f}, test {label} {found[f'test_{metric}']:.1f}"
            about += f", trained in {clock(found['training_seconds'])}"
        left = self.clock.left(self.status.survey())
        print(f"{self.place(entry.row)}: {about}; {self.clock.passed()} passed, left {left}", flush=True)

    def place(self, row: declaration.Row) -> str:
        return f"[{self.position}/{self.total}] {row.name}"


class RayRunner(Runner):
    """Has Ray Tune carry a study out: rows that are left, and those that searches propose, wherever there is room."""

    def __init__(self, status, scripts, retry_failed: bool, address: str | None):
        super().__init__(status, scripts, retry_failed)
        self.address, self.positions = address, {}

    def workers(self):
        import mlflow

        from common.studies import ray_backend

        asked = [stage.resources for stage in self.study.stages]
        return ray_backend.connected(self.address, mlflow.get_tracking_uri(), asked)

    def carry_out_stage(self, stage, entries, best):
        from common.studies import ray_backend

        waiting = [entry.row for entry in entries if self.waits(entry)]
        self.position += sum(entry.status != "undecided" and not self.waits(entry) for entry in entries)
        left, points = self.status.trials_left(stage, best), self.status.proposed(stage)
        searches = []
        for key, spaces in stage.searches.items():
            if not left.get(key):
                continue
            known = [(point, self.worth(stage, key, point, best)) for point in points[key]]
            propose = functools.partial(self.status.propose, stage, key, best=best)
            searches.append(ray_backend.Search(spaces, left[key], known, stage.seeds[0], propose))
        if waiting or searches:
            hooks = ray_backend.Hooks(
                functools.partial(self.job, stage), self.tell_start, self.end, self.stop
            )
            with tempfile.TemporaryDirectory() as scratch:
                ray_backend.carry_out(stage, waiting, searches, hooks, Path(scratch))
        entries = [
            self.keep(entry) for entry in self.status.entries(stage, best) if entry.status != "undecided"
        ]
        for entry in entries:
            if entry.status == "stopped":
                self.clear(entry)
        return entries

    def worth(self, stage, key, point, best) -> float | None:
        """The validation score of a point that was proposed before."""
        entry = self.status.look(self.status.row(stage, key, point, best))
        if entry.status == "stopped":
            return self.folder.state["rows"][self.status.plan(entry.row).key]["score"]
        return self.status.scores([entry])[entry.row.name]

    def job(self, stage, row: declaration.Row) -> dict:
        planned = self.status.plan(row)
        return {
            "command": self.command(row),
            "log": str(self.folder.log(row.name).resolve()),
            "output_dir": planned.args.output_dir,
            "metric": self.status.task.metric,
            "epochs": row.technique.num_train_epochs,
            "threads": stage.resources.cpus,
            "cwd": os.getcwd(),
        }

    def tell_start(self, row: declaration.Row, again: bool) -> None:
        if again:
            print(f"{self.place(row)}: its worker died; it goes on from its last checkpoint", flush=True)
            return
        self.clock.start(row)
        self.position += 1
        self.positions[row.name] = self.position
        print(f"{self.place(row)}: training; it writes to {self.folder.log(row.name)}", flush=True)

    def end(self, row: declaration.Row, code: int | None, why: str) -> float | None:
        self.clock.stop(row)
        entry = self.status.look(row)
        if entry.status != "finished":
            self.note_failure(row, code, why)
            entry = self.status.look(row)
        self.tell(self.keep(entry))
        return self.status.scores([entry])[row.name]

    def stop(self, row: declaration.Row, epoch: float, score: float) -> None:
        self.clock.stop(row)
        why = (
            f"ASHA stopped it after epoch {epoch:g}: validation {LABELS[self.status.task.metric]} {score:.1f}"
        )
        note = {"name": row.name, "status": "stopped", "reason": why, "score": score}
        self.folder.state["rows"][self.status.plan(row).key] = note
        self.folder.save()
        print(f"{self.place(row)}: {why}", flush=True)

    def clear(self, entry) -> None:
        """Tell the store that a row was stopped, and remove what it would have gone on from."""
        from common.tracking import runs

        if self.begun(entry.row).is_file():
            run_id = _run_id(self.begun(entry.row))
            if run_id:
                runs.fail(run_id, entry.reason, "KILLED")
            shutil.rmtree(self.begun(entry.row).parent)

    def place(self, row: declaration.Row) -> str:
        return f"[{self.positions[row.name]}/{self.total}] {row.name}"


def _run_id(state: Path) -> str | None:
    return json.loads(state.read_text(encoding="utf-8")).get("run_id")


def reporter():
    """What writes the report."""
    from common.reports.study_report import write_report

    return write_report


def told(entries) -> list[list]:
    """What a report is made of: the same rows with the same runs need no other."""
    return [[entry.row.name, entry.status, entry.run_id] for entry in entries]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(guarded(main))
