"""`fit`: one run from prepared data to a logged model."""

import errno
import shlex
import shutil
import sys

from .. import stopping
from ..paths import interpreter
from ..tracking import wandb_mirror
from . import recording
from .job import Job
from .planning import Plan, check_tokenizer, plan
from .run_folder import local_rank, own, read_state, remove, unwritable
from .settings import RunArgs, Technique


def fit(technique: Technique, args: RunArgs) -> str | None:
    """Train, keep the epoch with the best validation score, test it once, log everything; returns the run's id.

    On several processes (torchrun, accelerate launch) the first one alone talks to MLflow; the others return None.
    """
    planned = plan(technique, args)
    args = planned.args
    if args.skip_finished and (done := planned.finished):
        print(f"{technique.name}: run {done} already holds this result; nothing to do.")
        return done
    check_tokenizer(planned)
    output_dir = planned.output_dir
    with own(output_dir, planned.key, args.resume, recording.abandon) as state:
        if done := _ended(planned, state):
            return done
        scratch = output_dir / "scratch"
        job = Job(planned, scratch)
        if not job.is_main:
            job.train_and_test(_Unlogged())
            job.leave_group()
            return None
        record = planned.record
        tags = {
            "technique": technique.name,
            "family": planned.family.model_type,
            "task": args.task,
            "checkpoint": planned.checkpoint.name,
            "checkpoint_requested": args.model_checkpoint,
            "data_name": record.name,
            "data_version": record.version,
            "data_fingerprint": record.fingerprint,
            "run_fingerprint": planned.key,
        }
        if args.parent_run:
            tags["mlflow.parentRunId"] = args.parent_run
        state = {"run_fingerprint": planned.key} | state
        try:
            with (
                stopping.farewell(lambda: f"To go on: {_command()}"),
                recording.recorded(
                    output_dir, state, args.experiment_name, args.run_name or technique.name, tags
                ) as run,
            ):
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                with wandb_mirror.mirrored(run, args, technique.name, tags) as told:
                    job.train_and_test(told)
                job.leave_group()
        except (KeyboardInterrupt, SystemExit):
            print(f"\nStopped. To go on: {_command()}", file=sys.stderr)
            raise
        except OSError as error:
            if error.errno not in _DISK:
                raise
            raise unwritable(output_dir, error) from error
        print(f"{technique.name}: run {run.id}, model {run.delivery.model_uri or 'in the store'}")
        remove(output_dir, read_state(output_dir) | {"finished": True})
        return run.id


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def _ended(planned: Plan, state: dict) -> str | None:
    """With --resume: the id of the run that has this result already, told to the store whole if a process was killed before it could."""
    if not planned.args.resume or local_rank() > 0:
        return None
    if state.get("removing"):
        done = state["run_id"]
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


class _Unlogged:
    """Stands for the MLflow run in every process but the first."""

    def __getattr__(self, _):
        return lambda *args, **kwargs: None
