"""What a store carries: N writers at once log as trainings do, into sqlite (WAL) and into a team's server over HTTP.

Each writer is a process with a run: parameters and tags, then metrics step by step, each call waited for, as fast as
the store takes them (a training waits for its own steps in between). Both stores take turns, with accounts and proxy
as docs/TEAM.md sets them up. A write is one call: a batch of three metrics, or the parameters, or the tags. Prints
JSON. Needs requirements-team.txt and PostgreSQL.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
import mlflow
import psutil
from decoding import provenance
from table_rows import json_flag, save_rows

from common.team import accounts
from common.team.server import Team
from common.tracking import experiments, runs, store

PARAMETERS = {f"parameter_{i}": i for i in range(30)}
TAGS = {f"tag_{i}": "x" * 40 for i in range(25)}


def write(environment: dict, steps: int, ready, results) -> None:
    """One writer: when it began and ended, seconds of each call, the message of each error, steps that were not kept."""
    os.environ.update(environment)
    mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
    client, seconds, errors = mlflow.MlflowClient(), [], []
    run = runs.Run(client.create_run(experiments.experiment_id("writers")).info.run_id)
    calls = [lambda: run.log_params(PARAMETERS), lambda: run.set_tags(TAGS)]
    for step in range(steps):
        values = {"train_loss": 1 / (step + 1), "learning_rate": 1e-3, "grad_norm": 1.0}
        calls.append(lambda values=values, step=step: run.log_metrics(values, step))
    ready.wait()
    began = time.time()
    for call in calls:
        started = time.perf_counter()
        try:
            call()
        except Exception as error:
            # SQLAlchemy puts the driver's message on a line of its own.
            lines = str(error).splitlines()
            errors.append(next((line for line in lines if "Error)" in line), lines[0])[:200])
        seconds.append(time.perf_counter() - started)
    kept = len(client.get_metric_history(run.id, "train_loss"))
    results.put((began, time.time(), seconds, errors, steps - kept))


def measure(environment: dict, writers: int, steps: int) -> dict:
    """Writes a second of all writers together, the 95th percentile of a write in ms, errors, steps that were lost."""
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(writers), context.Queue()
    processes = [
        context.Process(target=write, args=(environment, steps, ready, results)) for _ in range(writers)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    seconds = sorted(s for _, _, each, _, _ in found for s in each)
    wall = max(end for _, end, *_ in found) - min(begin for begin, *_ in found)
    errors = [error for *_, each, _ in found for error in each]
    return {
        "writes_per_second": (len(seconds) - len(errors)) / wall,
        "median_ms": 1000 * statistics.median(seconds),
        "p95_ms": 1000 * seconds[int(0.95 * (len(seconds) - 1))],
        "longest_ms": 1000 * seconds[-1],
        "errors": len(errors),
        "lost_steps": sum(lost for *_, lost in found),
        "first_error": errors[0] if errors else None,
    }


def run(args) -> dict:
    # Not below a folder of root's: PostgreSQL runs under another account then.
    folder = Path(tempfile.mkdtemp(prefix="store-"))
    folder.chmod(0o755)
    team = Team(folder / "team")
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        team.up(port=port)
        stores = {
            "sqlite": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
            "team": {
                "MLFLOW_TRACKING_URI": team.settings.address,
                "MLFLOW_TRACKING_USERNAME": "writer",
                "MLFLOW_TRACKING_PASSWORD": accounts.add(team, "writer", "writer"),
            },
        }
        rows = []
        # This process opens neither store: a connection must not be carried into a fork.
        for name, environment in stores.items():
            prepare = multiprocessing.get_context("fork").Process(target=first_contact, args=(environment,))
            prepare.start()
            prepare.join()
            assert prepare.exitcode == 0, name
        for round_ in range(args.rounds):
            for writers in args.writers:
                for name, environment in stores.items():
                    load = psutil.getloadavg()[0]
                    found = measure(environment, writers, args.steps)
                    rows.append({"store": name, "writers": writers, "round": round_, "load": load, **found})
                    print(json.dumps(rows[-1]), flush=True)
    finally:
        if team.folder.exists():
            team.down()
        shutil.rmtree(folder)
    return {
        "rows": rows,
        "table": table(figures(rows, args.writers)),
        "steps": args.steps,
        "provenance": provenance(),
    }


def first_contact(environment: dict) -> None:
    """Make what is missing, as the first script does that uses a store."""
    os.environ.update(environment)
    mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
    store.configure()
    experiments.experiment_id("writers")


def figures(rows: list[dict], counts: list[int]) -> list[dict]:
    """A row for each count of writers: medians over the rounds, the longest of all; in sum, calls that failed or were lost."""
    made = []
    for count in counts:
        row, rates = {"writers": count}, []
        for store_, name in (("sqlite", "sqlite"), ("team", "server")):
            these = [row for row in rows if row["store"] == store_ and row["writers"] == count]
            rates.append([row["writes_per_second"] for row in these])
            row |= {
                f"{name}_writes": statistics.median(rates[-1]),
                f"{name}_p95_ms": statistics.median(row["p95_ms"] for row in these),
                f"{name}_longest_ms": max(row["longest_ms"] for row in these),
                f"{name}_failed": sum(max(row["errors"], row["lost_steps"]) for row in these),
            }
        row["ratio"] = statistics.median(b / a for a, b in zip(*rates, strict=True))
        made.append(row)
    return made


def table(rows: list[dict]) -> str:
    """The same as Markdown."""
    columns = {"writes": "writes/s", "p95_ms": "p95 ms", "longest_ms": "longest ms", "failed": "failed"}
    names = [f"{name}: {column}" for name in ("sqlite", "server") for column in columns.values()]
    lines = [f"| writers | {' | '.join(names)} | server / sqlite |", "| ---: " * 10 + "|"]
    for row in rows:
        cells = [f"{row[f'{name}_{field}']:,.0f}" for name in ("sqlite", "server") for field in columns]
        lines.append(f"| {row['writers']} | {' | '.join(cells)} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--writers", type=int, nargs="+", default=[1, 4, 8, 16], help="processes at once")
    p.add_argument("--steps", type=int, default=100, help="logged by each writer")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--output", type=Path, help="write the JSON here too")
    json_flag(p)
    args = p.parse_args()
    done = run(args)
    text = json.dumps(done, indent=1)
    print(text, "", done["table"], sep="\n")
    if args.output:
        args.output.write_text(text + "\n")
    save_rows(
        args.json,
        figures(done["rows"], args.writers),
        data=f"what trainings log, {args.steps} steps a writer, medians of {args.rounds} rounds",
    )


if __name__ == "__main__":
    main()
