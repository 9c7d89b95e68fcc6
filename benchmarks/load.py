"""Many clients at once against `mlflow models serve`: latency, throughput, memory, and whether each got its own answer.

Locust (in an environment of its own, made by this script) asks one question a request, without pause, from each number of
--clients for --seconds. Every answer is compared with what the same server gave to the same question when it was asked
alone. Memory is that of the server's processes, pages shared among them counted once for each. At the end SIGTERM arrives
while questions are being answered; none of those may be lost. Writes JSON, and a Markdown table beside it.
"""

import argparse
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _path  # noqa: F401
from decoding import provenance
from end_to_end import environment
from table_rows import json_flag, save_rows

from common.cli import guarded
from common.paths import ROOT

CLIENTS = """
import json, os, random
from locust import FastHttpUser, constant, task

asked = json.load(open(os.environ["ASKED"]))

class Client(FastHttpUser):
    wait_time = constant(0)

    @task
    def ask(self):
        row, by_version = random.choice(asked)
        with self.client.post("/invocations", json={"inputs": [row]}, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif response.headers["x-model-version"] not in by_version:
                response.failure(f"an answer of version {response.headers['x-model-version']}")
            else:
                (found,), (alone,) = response.json()["predictions"], by_version[response.headers["x-model-version"]]
                # Scores may differ in their last digits: products are summed up by one core or by several.
                score = found.pop("score")
                if abs(score - alone["score"]) > 1e-4 or found != {k: v for k, v in alone.items() if k != "score"}:
                    response.failure("another answer than the one it gets alone")
"""


def post(address: str, row: dict) -> tuple[str, list]:
    """(version that answered, its answer to one question)."""
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps({"inputs": [row]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["X-Model-Version"], json.loads(answer.read())["predictions"]


def serve(model: str, workers: int, log: Path, **settings: str) -> tuple[subprocess.Popen, str]:
    """A started server and its address. settings: environment variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(log, "w") as output:
        server = subprocess.Popen(
            [*command, "-p", str(port), "--workers", str(workers)],
            env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/ready", timeout=5).close()
            return server, address
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    sys.exit(f"The server did not start:\n{log.read_text()[-3000:]}")


def memory(pid: int) -> float:
    """MiB that a process and all below it hold."""
    import psutil

    found = 0.0
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        try:
            found += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            pass
    return found


def drained(server: subprocess.Popen, address: str, asked: list) -> tuple[int, int, float]:
    """How many requests that were under way at SIGTERM were answered, of how many, and the seconds until the end."""
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(post, address, row) for row, _ in asked[:4]]
        time.sleep(0.05)
        begun = time.perf_counter()
        os.kill(server.pid, signal.SIGTERM)
        answered = sum(request.exception() is None for request in under_way)
    server.wait(60)
    return answered, len(under_way), time.perf_counter() - begun


def loaded(python: str, address: str, pid: int, asked: list, clients: int, seconds: int, work: Path) -> dict:
    """Figures of some time under load. python: with Locust; pid: the server's; asked: (question, version → its answer)."""
    (work / "asked.json").write_text(json.dumps(asked))
    (work / "clients.py").write_text(CLIENTS)
    samples, over = [memory(pid)], threading.Event()

    def watch():
        while not over.wait(1):
            samples.append(memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    flags = ["--headless", "--host", address, "--only-summary", "--csv", work / "load"]
    flags += ["-u", clients, "-r", clients, "-t", f"{seconds}s"]
    try:
        done = subprocess.run(
            list(map(str, [python, "-m", "locust", "-f", work / "clients.py", *flags])),
            env={**os.environ, "ASKED": str(work / "asked.json")},
            capture_output=True,
            text=True,
        )
    finally:
        over.set()
        watcher.join()
    *_, total = csv.DictReader((work / "load_stats.csv").open())
    return {
        "clients": clients,
        "requests": int(total["Request Count"]),
        "failures": int(total["Failure Count"]),
        "failed_because": done.stdout[-2000:] if int(total["Failure Count"]) else "",
        "requests_per_second": round(float(total["Requests/s"]), 1),
        **{f"p{p}_ms": float(total[f"{p}%"]) for p in (50, 95, 99)},
        "memory_mib": {
            "before": round(samples[0]),
            "highest": round(max(samples)),
            "after": round(samples[-1]),
        },
    }


def run(model: str, args, questions: list[dict], work: Path) -> list[dict]:
    """A row of figures for each number of clients."""
    python = environment("locust", args.environments)
    server, address = serve(model, args.workers, work / "server.log")
    try:
        asked = [(row, dict([post(address, row)])) for row in questions]
        rows = [
            {"model": model, "workers": args.workers}
            | loaded(python, address, server.pid, asked, clients, args.seconds, work)
            for clients in args.clients
        ]
        answered, under_way, seconds = drained(server, address, asked)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
    ended = {"answered": answered, "of": under_way, "seconds": round(seconds, 1)}
    return [row | {"sigterm": ended} for row in rows]


def markdown(results: list[dict]) -> str:
    lines = [
        "| model | workers | clients | requests | failed or wrong | requests/s | p50 ms | p95 | p99 "
        "| MiB before | highest | after | answered at SIGTERM |",
        "| --- | " + "---: |" * 12,
    ]
    for r in results:
        cells = [
            r["model"],
            r["workers"],
            r["clients"],
            r["requests"],
            r["failures"],
            r["requests_per_second"],
        ]
        cells += [f"{r[f'p{p}_ms']:.0f}" for p in (50, 95, 99)]
        cells += [*r["memory_mib"].values(), f"{r['sigterm']['answered']} of {r['sigterm']['of']}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def questions_of(data_dir: str, count: int) -> list[dict]:
    """The first test questions of a data folder."""
    from common.data import prepared

    test = prepared.load(data_dir)[0]["test"]
    rows = test.select(range(min(count, len(test)))).to_list()
    return [{name: e[name] for name in ("question", "context")} for e in rows]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--models",
        nargs="+",
        default=[
            "models:/bert-squad-qa@champion",
            "models:/bert-squad-qa-onnx@fp32",
            "models:/bert-squad-qa-onnx@int8",
        ],
        help="torch, ONNX fp32 and int8 (register_best.py --export onnx)",
    )
    p.add_argument("--data_dir", default=str(ROOT / "squad_data"), help="asks its test questions")
    p.add_argument("--questions", type=int, default=200, help="different ones")
    p.add_argument(
        "--clients", type=int, nargs="+", default=[1, 8, 32, 128], help="at once, one after another"
    )
    p.add_argument("--seconds", type=int, default=60, help="for each number of clients")
    p.add_argument("--workers", type=int, default=1, help="processes of the server")
    p.add_argument("--environments", type=Path, default=ROOT / ".environments", help="where Locust's is kept")
    p.add_argument("--output", type=Path, default=Path("load.json"), help="JSON; .md lies beside it")
    json_flag(p)
    args = p.parse_args()
    from common.tracking import store

    store.configure()
    questions = questions_of(args.data_dir, args.questions)
    found = []
    for model in args.models:
        with tempfile.TemporaryDirectory() as work:
            found += [row | {"provenance": provenance()} for row in run(model, args, questions, Path(work))]
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    shown = [
        {"seconds": args.seconds, "wrong": each["failures"], **each}
        | {f"mib_{when}": mib for when, mib in each["memory_mib"].items()}
        | {"answered_at_sigterm": f"{each['sigterm']['answered']} of {each['sigterm']['of']}"}
        for each in found
    ]
    dropped = ("failures", "failed_because", "memory_mib", "sigterm", "provenance")
    save_rows(
        args.json,
        [{name: value for name, value in row.items() if name not in dropped} for row in shown],
        data=f"{len(questions)} test questions of {args.data_dir}",
    )
    table = markdown(found)
    args.output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    sys.exit(guarded(main))
