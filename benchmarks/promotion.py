"""Promotions under load: a server that follows an alias, while the alias moves between two versions.

Clients ask without pause, as in load.py, for --seconds; every --every seconds the alias moves to the other version. Each
answer is compared with what the version that it names gave to the same question alone: none may be lost, wrong, or of
another version than it says. The alias is one of its own, `under-load`, which is removed at the end. Writes JSON.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _path  # noqa: F401
from decoding import provenance
from end_to_end import environment
from load import loaded, post, questions_of, serve
from table_rows import json_flag, save_rows

from common.cli import guarded
from common.errors import UserError
from common.paths import ROOT

ALIAS = "under-load"


def arrived(address: str, row: dict, version: str) -> float:
    """Seconds until this version answers."""
    begun = time.perf_counter()
    while post(address, row)[0] != version:
        if time.perf_counter() - begun > 60:
            raise UserError(f"Version {version} did not answer within 60 seconds of its promotion.")
        time.sleep(0.1)
    return time.perf_counter() - begun


def run(args, questions: list[dict], work: Path) -> dict:
    from mlflow import MlflowClient

    client, uri = MlflowClient(), f"models:/{args.name}@{ALIAS}"
    python = environment("locust", args.environments)
    over, waits, server = threading.Event(), [], None
    try:
        client.set_registered_model_alias(args.name, ALIAS, args.versions[0])
        server, address = serve(uri, args.workers, work / "server.log", SERVING_FOLLOW=uri)
        asked: list[tuple[dict, dict]] = [(row, {}) for row in questions]
        for version in (*args.versions, args.versions[0]):
            client.set_registered_model_alias(args.name, ALIAS, version)
            arrived(address, questions[0], version)
            for row, by_version in asked:
                found, answer = post(address, row)
                by_version[found] = answer

        def promote():
            turn = 0
            while not over.wait(args.every):
                turn += 1
                version = args.versions[turn % 2]
                client.set_registered_model_alias(args.name, ALIAS, version)
                waits.append(arrived(address, questions[0], version))

        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(promote)
            try:
                found = loaded(python, address, server.pid, asked, args.clients, args.seconds, work)
            finally:
                over.set()
        # A promotion that did not arrive raises here.
        moving.result()
    finally:
        if server is not None and server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        client.delete_registered_model_alias(args.name, ALIAS)
    return found | {
        "seconds": args.seconds,
        "promotions": len(waits),
        "longest_wait_s": round(max(waits), 1) if waits else None,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--name", default="bert-squad-qa", help="the registered model")
    p.add_argument("--versions", nargs=2, default=["1", "2"], help="of it, which take turns")
    p.add_argument("--data_dir", default=str(ROOT / "squad_data"), help="asks its test questions")
    p.add_argument("--questions", type=int, default=200, help="different ones")
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--every", type=float, default=15, help="seconds between two promotions")
    p.add_argument("--workers", type=int, default=1, help="processes of the server")
    p.add_argument("--environments", type=Path, default=ROOT / ".environments", help="where Locust's is kept")
    p.add_argument("--output", type=Path, default=Path("promotion.json"))
    json_flag(p)
    args = p.parse_args()
    from common.tracking import store

    store.configure()
    questions = questions_of(args.data_dir, args.questions)
    with tempfile.TemporaryDirectory() as work:
        found = run(args, questions, Path(work))
    args.output.write_text(json.dumps(found | {"provenance": provenance()}, indent=1) + "\n")
    row = {"wrong": found["failures"]} | found
    dropped = ("failures", "failed_because", "memory_mib")
    save_rows(
        args.json,
        [{name: value for name, value in row.items() if name not in dropped}],
        data=f"{len(questions)} test questions of {args.data_dir}",
    )
    print(json.dumps(found, indent=1))
    if found["failures"]:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
