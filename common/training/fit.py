"""`fit`: one run from prepared data to a logged model."""

import errno
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import stopping
from ..paths import interpreter
from ..tasks import naming
from ..tracking import system_metrics, wandb_mirror
from ..tracking.run_log import Silent
from . import recording, teachers
from .assessment import Assessment
from .job import Job
from .planning import Plan, check_tokenizer, plan
from .rates import number
from .run_folder import local_rank, own, read_state, remove, unwritable
from .settings import RunArgs, Technique


def fit(technique: Technique, args: RunArgs, again: str | None = None) -> str | None:
    """Train, keep the epoch with the best validation score, test it once, log everything; returns the run's id.

    again: what continues the run if it is interrupted, as the user types it; default: the command line.
    On several processes (torchrun, accelerate launch) only the first one talks to MLflow; the others return None.
    """
    planned = plan(technique, args)
    if planned.args.skip_finished and (done := planned.finished):
        print(f"{technique.name}: run {done} already holds this result; nothing to do.")
        return done
    check_tokenizer(planned)
    teachers.check(planned)
    with own(planned.output_dir, planned.key, planned.args.resume, recording.abandon) as state:
        if done := _ended(planned, state):
            return done
        if planned.rate_source != "set" and local_rank() == 0:
            rate = number(planned.technique.learning_rate or 0)
            print(f"{technique.name}: learning rate {rate}, {planned.rate_source}")
        job = Job(planned, planned.output_dir / "scratch")
        if not job.is_main:
            job.carry_out(Silent())
            job.leave_group()
            return None
        return record(job, state, again or _command())


def record(job: Assessment, state: Mapping[str, Any], again: str) -> str:
    """Carry out a job, record it and remove its folder; returns the run's id. What stops it is shown with what continues it.

    state: what `own` found in the folder.
    """
    planned, scratch, tags = job.plan, job.scratch, _tags(job.plan) | job.tags
    folder, args, every = planned.output_dir, planned.args, system_metrics.interval()
    name = args.run_name or planned.technique.name
    begun = {"run_fingerprint": planned.key, **state}
    try:
        with (
            stopping.farewell(lambda: f"To go on: {again}"),
            recording.recorded(folder, begun, planned.experiment, name, tags) as run,
            system_metrics.sampled(run.log_system, every),
        ):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            with wandb_mirror.mirrored(run, args.report_to, planned.experiment, name, tags) as log:
                job.carry_out(log)
            job.leave_group()
    except (KeyboardInterrupt, SystemExit):
        print(f"\nStopped. To go on: {again}", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise unwritable(folder, error) from error
    print(f"{planned.technique.name}: run {run.id}, model {run.delivery.model_uri or 'in the store'}")
    remove(folder, read_state(folder) | {"finished": True})
    return run.id


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def _tags(planned: Plan) -> dict[str, str]:
    """The tags of a plan's run."""
    record, args = planned.record, planned.args
    tags = {
        "technique": planned.technique.name,
        "family": planned.family.model_type,
        "task": args.task,
        "checkpoint": planned.checkpoint.name,
        "checkpoint_requested": args.model_checkpoint,
        "data_name": record.title,
        "data_version": record.version,
        "data_fingerprint": record.fingerprint,
        "run_fingerprint": planned.key,
        "learning_rate_source": planned.rate_source,
    }
    if planned.teacher:
        tags["teacher"] = planned.teacher.name
    if record.labels:
        tags["labels"] = listed(record.labels)
    if record.called:
        tags[naming.TAG] = record.called
    if record.language:
        tags["data_language"] = record.language
    return tags | ({"mlflow.parentRunId": args.parent_run} if args.parent_run else {})


_MOST_LABELS = 50
"""Labels that a run's tag names."""


def listed(labels: Sequence[str]) -> str:
    """The labels in a line; of very many the first ones and the number of the others."""
    shown = ", ".join(" ".join(name.split()) for name in labels[:_MOST_LABELS])
    more = len(labels) - _MOST_LABELS
    return f"{shown} and {more:,} more" if more > 0 else shown


def _ended(planned: Plan, state: Mapping[str, Any]) -> str | None:
    """With --resume: the id of the run that has this result already. A store that lacks a part of it is sent the rest."""
    if not planned.args.resume or local_rank() > 0:
        return None
    if state.get("removing"):
        done: str | None = state["run_id"]
    elif state:
        done = recording.finished(planned.output_dir)
        if done:
            recording.send(planned.output_dir)
    else:
        done = planned.finished
        if not done:
            print(f"--resume: {planned.output_dir} holds nothing to go on from; starting at the beginning.")
    if done:
        print(f"--resume: run {done} holds the whole result; nothing to do.")
    return done


def _command() -> str:
    return shlex.join([interpreter(), *(a for a in sys.argv if a != "--resume"), "--resume"])
