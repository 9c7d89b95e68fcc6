"""Kill the suite with SIGKILL at random moments while it prepares data, trains, tests, logs and registers; each time start it again as
a user would, and compare what is left in the end with an undisturbed run: weights, metrics, curves and predictions bit for bit.

Half of the kills come at a random moment, half at a random change of a file below the trial's folder (opened for writing,
renamed, removed), where a crash leaves the most behind. Now and then the newest checkpoint is cut short as well. Prints JSON.

  python benchmarks/kill.py --kills 25
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401

from common.paths import ROOT

# In the victim, before anything else: count changes of files below a folder, and die at a given one.
VICTIM = """
import os, signal, sys
_folder, _left = os.environ.get("KILL_FOLDER"), [int(os.environ.get("KILL_AT", 0))]
_counts = os.environ.get("KILL_COUNT")
_changes = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0, "os.link": 1}
def _hook(event, args):
    if event == "open":
        path, writes = args[0], bool(isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    elif event in _changes:
        path, writes = args[_changes[event]], True
    else:
        return
    if writes and isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(_folder):
        _left[0] -= 1
        if _left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if _counts:
            with_counts(-_left[0])
def with_counts(n):
    fd = os.open(_counts, os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, str(n).encode(), 0)
    os.close(fd)
if _folder:
    sys.addaudithook(_hook)
"""

TIMES = {
    "training_seconds",
    "train_samples_per_second",
    "peak_memory_mib",
    "evaluation_seconds",
    "evaluation_samples_per_second",
}
"""Metrics that are measured with a clock and differ between any two runs."""


STAGES = ("prepare", "train", "register")
"""Training prepares the data itself where it is missing."""


class Trial:
    """A folder with data, model, store and output of its own, and the three commands that fill it."""

    def __init__(self, folder: Path, model: Path, script: str, flags: list[str], stages=STAGES):
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        data, out = str(folder / "data"), str(folder / "out")
        self.out = folder / "out"
        common = ["--data_dir", data, "--model_checkpoint", str(model), "--output_dir", out]
        self.stages = {
            "prepare": ["prepare_data.py", "--source", "sample", "--output_dir", data],
            "train": [script, *common, *flags, "--resume"],
            "register": ["register_best.py", "--data_dir", data],
        }
        self.stages = {stage: self.stages[stage] for stage in stages}

    def start(self, stage: str, **environment: str) -> subprocess.Popen:
        """Start a stage's script, in a process group of its own."""
        name, *args = self.stages[stage]
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": self.uri,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.folder.parent / "victim"),
            "KILL_FOLDER": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        return subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / name), *args],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def finish(self, stage: str) -> float:
        """Let a stage run to its end; seconds. SystemExit with its output if it fails."""
        started = time.monotonic()
        code = self.start(stage).wait()
        if code != 0:
            said = (self.folder.parent / f"{self.folder.name}.log").read_text()[-4000:]
            raise SystemExit(f"{self.folder.name}: {stage} ended with {code}\n{said}")
        return time.monotonic() - started


def small_model(folder: Path) -> Path:
    """A BERT of two layers with random weights and with dropout, so that random states count too."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering

    from common.models.base import packaged_model

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertForQuestionAnswering(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(packaged_model(), trust_remote_code=False).save_pretrained(folder)
    return folder


def outcome(trial: Trial) -> dict:
    """All that a finished trial has left which two undisturbed ones have in common; the counts of what there must be one of."""
    import mlflow
    from safetensors.numpy import load_file

    from common.data import prepared
    from common.serving.model_logging import SHARED_BASES
    from common.tracking import system_metrics

    mlflow.set_tracking_uri(trial.uri)
    client = mlflow.MlflowClient()
    [(check,)] = sqlite3.connect(trial.folder / "mlflow.db").execute("pragma integrity_check")
    runs = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.technique != ''", output_format="list"
    )
    run = runs[0]
    names = sorted(system_metrics.without(run.data.metrics))
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    logged = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    versions = client.search_model_versions("name = 'bert-squad-qa'")
    registered = {"tags": {}, "described": [bool(version.description) for version in versions]}
    source = next(f"models:/{m.model_id}" for m in logged if m.name == "model")
    if versions:
        champion = client.get_model_version_by_alias("bert-squad-qa", "champion")
        source = champion.source
        own = {"run_id", "champion_since", "latency_ms", "latency_p95_ms"}
        tags = champion.tags.items()
        registered["tags"] = {k: v for k, v in tags if not k.startswith("git_") and k not in own}
    folder = Path(mlflow.artifacts.download_artifacts(source))
    tensors = {
        f"{file.relative_to(folder)}:{name}": tensor.tobytes().hex()
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    bases = client.get_experiment_by_name(SHARED_BASES)
    stored = client.search_runs([bases.experiment_id]) if bases else []
    artifacts = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    answers = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    _, record = prepared.load(trial.folder / "data")
    return {
        "same": {
            "data": record.fingerprint,
            "metrics": {name: run.data.metrics[name] for name in names if name not in TIMES},
            "curves": {
                name: sorted((m.step, m.value) for m in histories[name])
                for name in names
                if name not in TIMES
            },
            "points_of_times": {name: len(histories[name]) for name in names if name in TIMES},
            "params": {k: v for k, v in run.data.params.items() if k != "data_dir"},
            "weights": tensors,
            "answers": answers,
            "artifacts": artifacts,
            "registered": registered,
        },
        "counts": {
            "integrity": check,
            "runs": [run.info.status for run in runs],
            "logged_models": sorted((m.name, str(m.status)) for m in logged),
            "versions": len(versions),
            "bases": [r.info.status for r in stored],
            "output_left": trial.out.exists(),
        },
    }


def differences(found: dict, wanted: dict) -> list[str]:
    """Names of what is not as in the undisturbed run."""
    wrong = [f"same.{name}" for name in wanted["same"] if found["same"].get(name) != wanted["same"][name]]
    return wrong + [
        f"{name}: {found['counts'][name]}"
        for name in wanted["counts"]
        if found["counts"][name] != wanted["counts"][name]
    ]


def disturb(trial: Trial, kills: int, lengths: dict, chance: random.Random) -> list[dict]:
    """Go through the stages with so many kills on the way; what each one hit."""
    # A stage is hit the more often the more it writes; of its time most goes into imports.
    stages = collections.Counter(chance.choices(list(lengths), [n for _, n in lengths.values()], k=kills))
    log = []
    for stage, (seconds, changes) in lengths.items():
        for _ in range(stages[stage]):
            by_change = chance.random() < 0.5
            at = chance.randint(1, changes) if by_change else chance.uniform(0.1, seconds)
            cut = stage == "train" and chance.random() < 0.3 and cut_short(trial.out, chance)
            process = trial.start(stage, **({"KILL_AT": str(at)} if by_change else {}))
            try:
                process.wait(None if by_change else at)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            hit = {"stage": stage, "at": f"change {at}" if by_change else f"{at:.2f} s", "code": code}
            log.append(hit | {"cut": cut or None, "left": state_of(trial)})
            if code == 0:
                break
            assert code == -signal.SIGKILL, (trial.folder.parent / f"{trial.folder.name}.log").read_text()
        trial.finish(stage)
    return log


def cut_short(out: Path, chance: random.Random) -> str | None:
    """Cut a file of the newest checkpoint to a part of its length; its name."""
    checkpoints = sorted(out.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    if len(checkpoints) < 2:
        return None
    file = chance.choice(sorted(file for file in checkpoints[-1].iterdir() if file.stat().st_size > 1))
    content = file.read_bytes()
    # Not the file in place: the best weights have a second name.
    file.unlink()
    file.write_bytes(content[: chance.randrange(len(content))])
    return f"{checkpoints[-1].name}/{file.name}"


def state_of(trial: Trial) -> str:
    """What a kill left in the output folder, in short."""
    if not trial.out.exists():
        return "no output folder"
    names = sorted(p.name for p in trial.out.iterdir() if p.name.startswith((".checkpoint", "checkpoint-")))
    journal = trial.out / "journal.jsonl"
    entries = journal.read_bytes().splitlines() if journal.exists() else []
    last = json.loads(entries[-1])["do"] if entries else "nothing"
    sent = trial.out / "journal.sent"
    return f"{', '.join(names) or 'no checkpoint'}; {len(entries)} entries, {sent.read_text() if sent.exists() else 0} sent, last: {last}"


def run(
    kills: int, per_trial: int, seed: int, folder: Path, script: str, flags: list[str], stages=STAGES
) -> dict:
    """Trials with so many kills in all; the figures."""
    (folder / "victim").mkdir(parents=True)
    (folder / "victim" / "sitecustomize.py").write_text(VICTIM)
    model = small_model(folder / "model")
    whole = Trial(folder / "undisturbed", model, script, flags, stages)
    lengths = {}
    for stage in whole.stages:
        counts = folder / f"{stage}.count"
        started = time.monotonic()
        assert whole.start(stage, KILL_COUNT=str(counts)).wait() == 0, (
            folder / "undisturbed.log"
        ).read_text()
        lengths[stage] = (time.monotonic() - started, int(counts.read_text()))
    wanted = outcome(whole)
    chance, done, lost, trials = random.Random(seed), [], [], 0

    def killed() -> list[dict]:
        return [hit for hit in done if hit["code"] == -signal.SIGKILL]

    while len(killed()) < kills:
        trial, trials = Trial(folder / f"trial-{trials}", model, script, flags, stages), trials + 1
        hits = disturb(trial, min(per_trial, kills - len(killed())), lengths, chance)
        wrong = differences(outcome(trial), wanted)
        for hit in hits:
            print(json.dumps(hit), flush=True)
        print(f"{trial.folder.name}: {wrong or 'as undisturbed'}", flush=True)
        done += hits
        lost += wrong
        if not wrong:
            shutil.rmtree(trial.folder)
    return {
        "kills": len(killed()),
        "trials": trials,
        "ended_before_the_kill": len(done) - len(killed()),
        "by_stage": collections.Counter(hit["stage"] for hit in killed()),
        "checkpoints_cut_short": sum(bool(hit["cut"]) for hit in done),
        "lost": lost,
        "undisturbed": {stage: {"seconds": round(s, 1), "changes": n} for stage, (s, n) in lengths.items()},
        "hits": done,
        "seed": seed,
    }


FLAGS = (
    "--max_train_samples 60 --max_validation_samples 30 --max_test_samples 30 --max_length 96 --doc_stride 16 "
    "--batch_size 4 --num_train_epochs 3 --logging_steps 3 --save_steps 5 --dropout 0.1"
)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=25)
    p.add_argument("--per_trial", type=int, default=5, help="kills on one way from data to champion")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", type=Path, help="write the JSON here too")
    args = p.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    done = run(args.kills, args.per_trial, args.seed, folder, "bert_fine_tuning_LoRA.py", FLAGS.split())
    text = json.dumps(done, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    if done["lost"]:
        sys.exit(f"Something was lost; it lies in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
