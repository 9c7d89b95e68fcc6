"""From finished runs to a served version: chosen by validation, checked, registered, and champion if it passes the gate.

A candidate is chosen by its validation score alone. The test data decides, example by example, whether it replaces the
champion (`gate`); a version that does not pass is registered as challenger.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ..errors import UserError
from ..models.bundles import read_bundle
from ..paths import command
from ..scoring.names import LABELS
from ..scratch import scratch
from ..serving import model_logging
from ..tasks import naming
from ..tasks.interface import Task
from ..tracking import runs as tracking
from ..tracking import store
from . import champion as promotion
from . import checking, error_analysis, gate, versions
from .checking import Checked, Questions
from .choosing import choose
from .demands import Demands, Judge
from .gate import CHALLENGER, CHAMPION, Rules, Verdict
from .head_to_head import Contender, contest, sentence

MOST_OTHERS = 20
"""Most runs that a candidate's errors are compared with, the newest of each technique and checkpoint."""


@dataclass(frozen=True)
class Outcome:
    """The result of `register_best`, or of a dry run. `alias` is None for a version that is neither champion nor challenger."""

    name: str
    """Name of the registered model."""
    task: Task
    version: str | None
    """None: a dry run found no version, and creates none."""
    alias: str | None
    run_id: str
    is_new: bool
    notes: tuple[str, ...]
    """Sentences for the reader: what was left out, how the version was checked, what it replaces."""
    figures: tuple[str, ...] = ()
    """A line for every check and figure that the verdict depends on; empty if nothing was judged."""


@store.explained()
def register_best(
    experiment_name: str,
    data_fingerprint: str | None = None,
    data_dir: str | Path | None = None,
    task: str | None = None,
    rules: Rules | None = None,
    dry_run: bool = False,
    demands: Demands | None = None,
) -> Outcome:
    """Register the finished run with the best validation score on one data set, and make it champion if it passes.

    The score is the task's deciding one: F1 of answers, accuracy of labels. task: its name; default: the newest run's.
    data_fingerprint: first characters of the data's fingerprint; default: the newest run's. data_dir: the prepared data,
    for its contexts or texts; default: the folder that the run was trained from. rules: the rules of promotion.
    dry_run: judge the run's own model, and write nothing anywhere. demands: what promotion requires beside the test data.

    A run that is registered already is not registered again: a challenger is judged again, and a former champion stays as it
    is. UserError if there is no run, or nothing to check its model with.
    """
    rules = rules or Rules()
    gate.check(rules)
    store.configure()
    found = tracking.finished_runs(experiment_name)
    if found.empty:
        raise UserError(
            f"The experiment {experiment_name!r} holds no finished run: train first, or name another."
        )
    found, of, left_out = tracking.of_task(found, task)
    limits = {
        id_: mlflow.get_run(id_).data.params.get("max_validation_samples", "None") for id_ in found["run_id"]
    }
    limited = found.assign(max_validation_samples=found["run_id"].map(limits))
    best, notes = choose(limited, data_fingerprint, of)
    notes = [f"Left out: {line}." for line in left_out] + notes
    run = mlflow.get_run(best["run_id"])
    # Read before anything is measured.
    further = Judge.of_run(demands or Demands(), of, run)
    # Two processes on this machine would both find nothing registered; `promotion` handles those on other machines.
    with contextlib.nullcontext() if dry_run else store.lock("register"):
        return _Registration(run, found, data_dir, of, rules, further, dry_run, notes).carried_out()


@store.explained()
def rollback(name: str, dry_run: bool = False) -> tuple[str, str]:
    """Give the alias champion of a registered model back to the previous champion: (version that had it, version that has it
    afterwards).

    UserError if there is none.
    """
    store.configure()
    with contextlib.nullcontext() if dry_run else store.lock("register"):
        return promotion.rollback(mlflow.MlflowClient(), name, dry_run)


@dataclass(frozen=True)
class _Candidate:
    """A run's model with the results of its checks and measurements."""

    contender: Contender
    checked: Checked
    questions: Questions
    model_uri: str


class _Registration:
    """The part of one call of `register_best` that follows the choice of the run."""

    def __init__(
        self,
        run: Run,
        runs: pd.DataFrame,
        data_dir: str | Path | None,
        task: Task,
        rules: Rules,
        further: Judge,
        dry_run: bool,
        notes: list[str],
    ):
        self.run, self.runs, self.data_dir, self.task = run, runs, data_dir, task
        self.rules, self.further, self.dry_run, self.notes = rules, further, dry_run, notes
        self.client, self.name = mlflow.MlflowClient(), naming.registered(task, run.data.tags)
        self.figures: list[str] = []
        self._known: dict[str, Contender] = {}

    def carried_out(self) -> Outcome:
        self._refuse_other_task()
        version = versions.of_run(self.client, self.run, self.task)
        champion = promotion.by_alias(self.client, self.name, CHAMPION)
        if version is not None:
            number = str(version.version)
            self.notes.append(f"Run {self.run.info.run_id} is registered already, as version {number}.")
            if champion == number:
                return self._outcome(version, CHAMPION)
            if champion is not None and promotion.SINCE in version.tags:
                self.notes.append(
                    f"It was champion before. Version {champion} is champion; the aliases stay as they are."
                )
                return self._outcome(version, None)
        if self.dry_run:
            candidate = self._candidate(version)
            return self._foreseen(candidate, version, champion)
        is_new = version is None
        candidate = self._candidate(version)
        self.notes.append(candidate.checked.summary)
        if version is None:
            version = self._new_version(candidate)
        self._analyse(candidate, champion)
        settled = promotion.promote(
            self.client,
            self.name,
            str(version.version),
            judge=self._judge(str(version.version), candidate),
            note=lambda verdict, against: versions.note(
                self.client,
                version,
                verdict,
                against,
                _measured(candidate),
                self.rules,
                str(self.further.demands),
            ),
        )
        self._note_verdict(settled.verdict, f"version {version.version}", settled.incumbent)
        return self._outcome(version, settled.alias, is_new)

    def _refuse_other_task(self) -> None:
        """UserError where the model of this name holds versions for another task, as two data sets of one name make it."""
        for version in self.client.search_model_versions(f"name = '{self.name}'"):
            other = version.tags.get("task", self.task.name)
            if other != self.task.name:
                raise UserError(
                    f"{self.name} is the name of models for {other}: prepare the data for {self.task.name} under another "
                    f"{command('prepare_data.py')} --name."
                )

    def _outcome(self, version: ModelVersion | None, alias: str | None, is_new: bool = False) -> Outcome:
        number = None if version is None else str(version.version)
        return Outcome(
            self.name,
            self.task,
            number,
            alias,
            self.run.info.run_id,
            is_new,
            tuple(self.notes),
            tuple(self.figures),
        )

    def _candidate(self, version: ModelVersion | None) -> _Candidate:
        """Load, check and measure the model of a version; without one, the run's with its base inside, which is logged for that.

        In a dry run it is the run's own model.
        """
        run = self.run
        if version is None:
            uri = f"models:/{versions.logged_model(run).model_id}"
        else:
            uri = f"models:/{self.name}/{version.version}"
        logged = None
        with scratch() as place:
            bundle, example = versions.self_contained(uri, place)
            about, size = read_bundle(bundle), versions.size_mib(bundle)
            asked = checking.questions(run, example, self.data_dir, self.task)
            if version is None and not self.dry_run:
                # A process that was killed between this call and the next has left one.
                model_logging.forget_models(run.info.run_id, "self-contained")
                logged = model_logging.log_bundle(
                    bundle, example, run_id=run.info.run_id, name="self-contained"
                )
                uri = logged.model_uri
            try:
                precision = run.data.params.get("precision", "fp32")
                checked = checking.check(uri, asked, about, self.task, precision)
            except BaseException:
                # A team's server lets people write into each other's runs, but not delete from them.
                with contextlib.suppress(MlflowException):
                    if logged is not None:
                        self.client.delete_logged_model(logged.model_id)
                raise
        tags = versions.tags_of(run) if version is None else version.tags
        scores = {row["id"]: row[self.task.metric] for row in asked.every}
        name = f"run {run.info.run_id}" if version is None else f"version {version.version}"
        contender = Contender(name, tags, scores, checked.latency_ms, size, checked.failed, uri)
        return _Candidate(contender, checked, asked, uri)

    def _new_version(self, candidate: _Candidate) -> ModelVersion:
        tags = candidate.contender.tags
        return versions.create(
            self.client,
            self.name,
            self.task.description,
            candidate.model_uri,
            tags,
            versions.describe(tags, self.run.data.params, candidate.checked.summary),
            run_id=self.run.info.run_id,
            same=versions.SAME_RUN,
        )

    def _judge(
        self, number: str | None, candidate: _Candidate
    ) -> Callable[[str | None, str | None], Verdict]:
        """A function that judges versions by their numbers. number: the candidate's; the figures of its own contests are kept."""

        def contender(which: str | None) -> Contender:
            if which is None or which == number:
                return candidate.contender
            return self._registered(which, candidate)

        def judge(new: str | None, old: str | None) -> Verdict:
            one, other = contender(new), None if old is None else contender(old)
            failed, further = self.further.judged(one, other, self.rules)
            one = replace(one, failed=(*one.failed, *failed))
            verdict, lines = contest(one, other, candidate.questions.examples, self.rules)
            if new == number:
                self.figures = [*_about(candidate, self.task, self.rules), *lines, *further]
                self.figures += [f"Verdict: {verdict.alias}: {'; '.join(verdict.reasons)}."]
            return verdict

        return judge

    def _registered(self, number: str, candidate: _Candidate) -> Contender:
        """A version from the registry with its recorded results; its latency is measured again if latency counts."""
        if number not in self._known:
            tags = dict(self.client.get_model_version(self.name, number).tags)
            rows = _rows(tags)
            scores = None if rows is None else {row["id"]: row[self.task.metric] for row in rows}
            latency = float(tags.get("latency_ms", "nan"))
            uri = f"models:/{self.name}/{number}"
            if self.rules.cheaper_latency is not None:
                latency = checking.latency(uri, candidate.questions)
            size = float(tags.get("size_mib", "nan"))
            self._known[number] = Contender(f"version {number}", tags, scores, latency, size, uri=uri)
        return self._known[number]

    def _foreseen(self, candidate: _Candidate, version: ModelVersion | None, champion: str | None) -> Outcome:
        number = None if version is None else str(version.version)
        verdict = self._judge(number, candidate)(number, champion)
        self.notes += [candidate.checked.summary]
        self._note_verdict(verdict, candidate.contender.name, champion)
        return self._outcome(version, verdict.alias)

    def _note_verdict(self, verdict: Verdict, name: str, incumbent: str | None) -> None:
        if verdict.alias == CHALLENGER:
            stays = "there is no champion" if incumbent is None else f"version {incumbent} stays champion"
            self.notes.append(f"{sentence(name)[:-1]} is challenger and {stays}:")
        elif incumbent is None:
            self.notes.append(f"{sentence(name)[:-1]} is champion:")
        else:
            self.notes.append(f"{sentence(name)[:-1]} replaces version {incumbent} as champion:")
        self.notes += [f"- {reason}" for reason in verdict.reasons]

    def _analyse(self, candidate: _Candidate, incumbent: str | None) -> None:
        """Log an analysis of the run's errors into its artifacts."""
        run, asked = self.run, candidate.questions
        beside = None
        if incumbent is not None:
            theirs = _rows(self.client.get_model_version(self.name, incumbent).tags)
            beside = theirs and (f"champion, version {incumbent}", theirs)
        with scratch() as place:
            folder = place / error_analysis.FOLDER
            error_analysis.write(
                folder, asked.every, asked.examples, self._others(), self.task, beside or None
            )
            self.client.log_artifacts(run.info.run_id, str(folder), error_analysis.FOLDER)

    def _others(self) -> dict[str, list[dict]]:
        """Name → rows of the other runs on the same data, the newest of each technique and checkpoint."""
        on_data = self.runs[
            (self.runs["data_fingerprint"] == self.run.data.tags["data_fingerprint"])
            & (self.runs["run_id"] != self.run.info.run_id)
        ].drop_duplicates(["technique", "checkpoint"])
        found = {}
        for _, other in on_data.head(MOST_OTHERS).iterrows():
            with contextlib.suppress(UserError):
                name = f"{other['technique']}, {other['checkpoint']}, {other['run_id'][:8]}"
                found[name] = tracking.predictions(other["run_id"])
        return found


def _rows(tags: Mapping[str, str]) -> list[dict] | None:
    """The test predictions of a version's run; None if they cannot be read, or the version was registered by hand."""
    try:
        return tracking.predictions(tags["run_id"]) if "run_id" in tags else None
    except UserError:
        return None


def _measured(candidate: _Candidate) -> dict[str, float]:
    checked = candidate.checked
    return {
        "latency_ms": checked.latency_ms,
        "latency_p95_ms": checked.latency_p95_ms,
        "size_mib": candidate.contender.size_mib,
    }


def _about(candidate: _Candidate, task: Task, rules: Rules) -> list[str]:
    """A line for each check and figure of the candidate by itself."""
    one, checked = candidate.contender, candidate.checked
    score = f"best_validation_{task.metric}"
    lines = [
        f"Candidate: {one.name}, {one.tags['technique']}, validation {LABELS[task.metric]} {one.tags[score]}.",
        f"Check: {checked.summary}",
    ]
    if checked.requests:
        bound = "no bound" if rules.max_latency_ms is None else f"bound {rules.max_latency_ms:g} ms"
        lines += [
            f"Check: it loads in a fresh process without the hub, in {checked.loading_seconds:.1f} s.",
            f"Check: median latency of {checked.requests} single requests {checked.latency_ms:.1f} ms (95% within "
            f"{checked.latency_p95_ms:.1f} ms); {bound}.",
        ]
    return [*lines, f"Size with its base: {one.size_mib:.1f} MiB."]
