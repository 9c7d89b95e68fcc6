"""Ask a served model thousands of odd requests; every answer must be right, or a refusal in plain words.

Requests are drawn by a seed: JSON in each of MLflow's formats, CSV, Parquet and other bytes, whole, damaged and odd. An answer is wrong
if it is a 5xx, a traceback, a refusal without a reason, or a 200 whose rows are not those that each question gets alone.
Only this machine is asked.

    python benchmarks/fuzz.py --address http://127.0.0.1:5001 --requests 10000
"""

import argparse
import csv
import http.client
import io
import json
import random
import sys
from collections import Counter
from urllib.parse import urlsplit

import _path  # noqa: F401
import pandas as pd
from table_rows import json_flag, save_rows

CONTEXTS = [
    "Mount Everest is 8,849 metres high.",
    'She said "no", twice;\nthen, at last, yes.',
    "NA",
    "Cafe\u0301 Zürich \U0001f41d \u0915\u094d\u0937 שלום",
    "5",
    "null, true, 1e5",
]
QUESTIONS = ["How high is it?", 'Who, "what"?', "NA", "5", "\u00bfQu\u00e9?", "Where\tis it?"]
ODD = [None, 5, True, [], {}, "", " ", "\ud800", 1e400, -0.0, ["a"], {"a": 1}, "x" * 3000, "\x00", 10**30]
FORMATS = ("inputs", "instances", "dataframe_records", "dataframe_split", "columns")
KEYS = ("parameters", "param", "input", "messages", "prompt", "instance", "id", "signature_name", "dataframe")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", default="http://127.0.0.1:5001", help="of mlflow models serve")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    json_flag(parser)
    args = parser.parse_args()
    if urlsplit(args.address).hostname not in ("127.0.0.1", "localhost", "::1"):
        sys.exit("error: --address must be on this machine.")
    table, wrong = fuzz(args.address, args.requests, args.seed)
    print("| request | 200 | refused | wrong |\n| --- | ---: | ---: | ---: |")
    for kind in sorted({kind for kind, _ in table}):
        print(f"| {kind} | {table[kind, '200']} | {table[kind, 'refused']} | {table[kind, 'wrong']} |")
    outcomes = {"answered": "200", "refused": "refused", "wrong": "wrong"}
    save_rows(
        args.json,
        [
            {"request": kind} | {field: table[kind, outcome] for field, outcome in outcomes.items()}
            for kind in sorted({kind for kind, _ in table})
        ],
        seeds=[args.seed],
    )
    print("\n".join(wrong[:20]))
    sys.exit(bool(wrong))


def fuzz(address: str, requests: int, seed: int) -> tuple[Counter, list[str]]:
    """(kind of request and outcome → how often, a line for each wrong answer)."""
    draw, table, wrong = random.Random(seed), Counter(), []
    pairs = [{"question": q, "context": c} for q in QUESTIONS for c in CONTEXTS]
    alone = {}
    for pair in pairs:
        status, text = post(address, json.dumps({"inputs": [pair]}).encode(), "application/json")
        assert status == 200, text
        alone[pair["question"], pair["context"]] = json.loads(text)["predictions"][0]
    for n in range(requests):
        kind, body, content_type, rows = request(draw, pairs)
        status, text = post(address, body, content_type)
        fault = judged(status, text, rows, alone)
        outcome = "wrong" if fault else "200" if status == 200 else "refused"
        table[kind, outcome] += 1
        if fault:
            wrong.append(
                f"request {n} ({kind}, {content_type}): {fault}: {body[:200]!r} -> {status} {text[:200]!r}"
            )
    return table, wrong


def request(draw: random.Random, pairs: list[dict]) -> tuple[str, bytes, str, list[dict] | None]:
    """(kind, body, content type, the rows that must be answered; None where it may be refused or answered)."""
    rows = draw.choices(pairs, k=draw.randint(1, 4))
    kind = draw.choice(
        ("JSON", "JSON", "CSV", "Parquet", "odd value", "odd key", "odd row", "damaged", "odd type", "bytes")
    )
    if kind == "CSV":
        return kind, as_csv(rows, draw), draw.choice(("text/csv", "text/csv; charset=utf-8")), rows
    if kind == "Parquet":
        file = io.BytesIO()
        pd.DataFrame(rows).to_parquet(file)
        return kind, file.getvalue(), "application/vnd.apache.parquet", rows
    content = as_json(rows, draw.choice(FORMATS))
    if kind == "JSON":
        if draw.random() < 0.3:
            content["params"] = draw.choice(({"top_k": 1}, {}, None))
        return kind, json.dumps(content).encode(), "application/json", rows
    if kind == "odd value":
        row = dict(rows[0])
        row[draw.choice(("question", "context"))] = draw.choice(ODD)
        content = as_json([row, *rows[1:]], draw.choice(FORMATS))
    elif kind == "odd key":
        if draw.random() < 0.5:
            content[draw.choice(KEYS)] = draw.choice([*ODD, rows])
        else:
            content["params"] = {
                draw.choice(("topk", "top-k", "k", "top_k", "null_threshold")): draw.choice(ODD)
            }
    elif kind == "odd row":
        odd, chance = dict(rows[0]), draw.random()
        if chance < 0.3:
            # Two rows in the place of one.
            odd = {name: [text, text] for name, text in odd.items()}
            rows = draw.choice((rows, []))
        elif chance < 0.6:
            odd["contexts"] = odd.pop("context")
        else:
            odd["extra"] = draw.choice(ODD)
        content = {draw.choice(("inputs", "instances", "dataframe_records")): [*rows, odd]}
    body = json.dumps(content).encode()
    if kind == "damaged":
        body = body if draw.random() < 0.5 else as_csv(rows, draw)
        at, cut = draw.randrange(len(body)), draw.randint(1, 5)
        body = body[:at] + draw.randbytes(draw.randint(0, 3)) + body[at + cut :]
        return kind, body, draw.choice(("application/json", "text/csv")), None
    if kind == "odd type":
        types = (
            "",
            "text/html",
            "application/json; a=b",
            "application/json; charset=latin-1",
            "application/vnd.apache.parquet",
            "text/csv; header=no",
            "a;b=c;d",
            "\u00e9",
        )
        return kind, body, draw.choice(types), None
    if kind == "bytes":
        return kind, draw.randbytes(draw.randint(0, 60)), draw.choice(("application/json", "text/csv")), None
    return kind, body, "application/json", None


def as_json(rows: list[dict], form: str) -> dict:
    if form == "columns":
        return {"inputs": {name: [row[name] for row in rows] for name in ("question", "context")}}
    if form == "dataframe_split":
        columns = ["question", "context"]
        return {form: {"columns": columns, "data": [[row[c] for c in columns] for row in rows]}}
    return {form: rows}


def as_csv(rows: list[dict], draw: random.Random) -> bytes:
    lines = io.StringIO()
    columns = ["question", "context"]
    draw.shuffle(columns)
    writer = csv.DictWriter(lines, columns, lineterminator=draw.choice(("\n", "\r\n")))
    writer.writeheader()
    writer.writerows(rows)
    return (draw.choice(("", "\ufeff")) + lines.getvalue()).encode()


def judged(status: int, text: str, rows: list[dict] | None, alone: dict) -> str:
    """What is wrong with an answer; "" for nothing."""
    if status >= 500:
        return "a server's error"
    if status != 200:
        if "Traceback" in text or 'File "' in text or "stack_trace" in text:
            return "a traceback"
        if rows is not None:
            return "a right request was refused"
        return "" if 0 < len(text) < 3000 else "no reason that can be read"
    try:
        answers = json.loads(text)["predictions"]
    except (ValueError, KeyError, TypeError):
        return "not in MLflow's format"
    if rows is None:
        known = [(a["answer"], a["start"]) for a in answers if set(a) >= {"answer", "score", "start", "end"}]
        return "" if len(known) == len(answers) else "rows of another kind"
    if len(answers) != len(rows):
        return f"{len(answers)} answers to {len(rows)} rows"
    for answer, row in zip(answers, rows, strict=True):
        expected = alone[row["question"], row["context"]]
        if abs(answer["score"] - expected["score"]) > 1e-4:
            return f"another answer than alone ({expected})"
        if answer["start"] >= 0 and row["context"][answer["start"] : answer["end"]] != answer["answer"]:
            return "not the text at its place"
    return ""


def post(address: str, body: bytes, content_type: str) -> tuple[int, str]:
    host = urlsplit(address)
    connection = http.client.HTTPConnection(host.hostname, host.port, timeout=60)
    try:
        headers = {"Content-Type": content_type.encode()} if content_type else {}
        connection.request("POST", "/invocations", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


if __name__ == "__main__":
    main()
