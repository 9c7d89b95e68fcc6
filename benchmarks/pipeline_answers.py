"""Answers of `QuestionAnswerer` against those of transformers' question-answering pipeline, on the same model and questions.

The pipeline is that of transformers 4.57, the last release with one, in an environment of its own that this script makes.
Two comparisons: with the same arguments (the pipeline's defaults), and with each one's own defaults. Every answer that
differs is counted under its reason: the pipeline is asked again without the step that the reason names.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from end_to_end import environment
from table_rows import json_flag, save_rows

from common.cli import guarded
from common.paths import ROOT

SAME = dict(max_seq_len=384, doc_stride=128, max_answer_len=15, align_to_words=True)
"""What the pipeline does where nothing is given, of what a call of the answerer decides by the model."""

PIPELINE = """
import json, sys
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, pipeline
model, questions = sys.argv[1], json.load(open(sys.argv[2]))
try:
    tokenizer = AutoTokenizer.from_pretrained(model)
except (ValueError, KeyError, AttributeError):
    # Saved by a later release, under a name that this one does not know.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
ask = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")
merged = type(ask).get_answer
WAYS = {
    "default": ({}, True),
    "unmerged": ({}, False),
    "tokens": ({"align_to_words": False}, False),
    "long": ({"align_to_words": False, "max_answer_len": int(sys.argv[3])}, False),
}
found, windows = {way: [] for way in WAYS}, []
for number, question in enumerate(questions):
    (example,) = ask._args_parser(question)
    # What a call does, with the network asked once for all ways.
    with torch.no_grad():
        outputs = [ask.forward(given) for given in ask.preprocess(example)]
    windows.append(len(outputs))
    for way, (arguments, merging) in WAYS.items():
        type(ask).get_answer = merged if merging else (lambda self, answers, target: None)
        given = ask.postprocess(outputs, **arguments)
        found[way].append({name: given[name] for name in ("answer", "start", "end", "score")})
    if number < 20:
        type(ask).get_answer = merged
        assert ask(**question) == found["default"][-1], question
print(json.dumps({"answers": found, "windows": windows}))
"""
"""Ways: as it is; spans with the same text not added up; also tokens not widened to words; also answers as long as the model's
own in this project."""

Answer = Mapping[str, Any]


def pipeline_answers(model: Path, questions: Sequence[dict], longest: int, python: Path) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "questions.json"
        file.write_text(json.dumps([{name: q[name] for name in ("question", "context")} for q in questions]))
        command = [str(python), "-c", PIPELINE, str(model), str(file), str(longest)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def equal(one: Answer, other: Answer) -> bool:
    return (one["answer"], one["start"], one["end"]) == (other["answer"], other["start"], other["end"])


def reason(own: Answer, ways: Mapping[str, Answer], order: Sequence[str], windows: int) -> str:
    """The first way of the pipeline, in this order, that gives the same answer; else how many windows the context has."""
    for way in order:
        if equal(own, ways[way]):
            return way
    return "windows" if windows > 1 else "other"


def compared(
    own: Sequence[Answer], found: Mapping, order: Sequence[str], questions: Sequence[dict]
) -> dict[str, Any]:
    """Shares of equal answers, how many differ for each reason, and how far the scores of equal spans in contexts of one window
    are apart, against the pipeline's last way in the order.
    """
    from common.scoring.squad import normalize_answer, squad_scores

    reference = found["answers"]["default"]
    reasons: Counter[str] = Counter()
    for i, (mine, theirs) in enumerate(zip(own, reference, strict=True)):
        if not equal(mine, theirs):
            ways = {way: answers[i] for way, answers in found["answers"].items()}
            reasons[reason(mine, ways, order, found["windows"][i])] += 1
    n = len(questions)
    golds = [{"id": q["id"], "answers": q["answers"]} for q in questions]

    def scored(answers: Sequence[Answer]) -> float:
        texts = {q["id"]: a["answer"] for q, a in zip(questions, answers, strict=True)}
        return float(squad_scores(texts, golds, "v1.1")["f1"])

    pairs = list(zip(own, reference, strict=True))
    # Scores that were added up, or are of widened spans, are no scores of spans.
    alike = zip(own, found["answers"][order[-1]], found["windows"], strict=True)
    kept = [(a["score"], b["score"]) for a, b, windows in alike if windows == 1 and equal(a, b)]
    return {
        "questions": n,
        "equal": 100 * sum(equal(*pair) for pair in pairs) / n,
        "equal_text": 100 * sum(a["answer"] == b["answer"] for a, b in pairs) / n,
        "equal_normalized": 100
        * sum(normalize_answer(a["answer"]) == normalize_answer(b["answer"]) for a, b in pairs)
        / n,
        "f1_own": scored(own),
        "f1_pipeline": scored(reference),
        "score_apart": max((abs(a - b) for a, b in kept), default=0.0),
        **{name: reasons[name] for name in ("unmerged", "tokens", "long", "windows", "other")},
    }


def run(args) -> list[dict]:
    from common.api import QuestionAnswerer
    from common.data.squad_json import read_squad_json
    from common.inference.foreign import LENGTHS

    every = [q for q in read_squad_json(args.file).examples if q["answers"]["text"]]
    n = min(args.questions, len(every))
    questions = [every[i * len(every) // n] for i in range(n)]
    asked = [{name: q[name] for name in ("question", "context")} for q in questions]
    answerer = QuestionAnswerer.from_pretrained(args.model)
    longest = LENGTHS["max_answer_length"]
    found = pipeline_answers(args.model, questions, longest, environment("adapters", args.environments))
    rows = [
        {"arguments": "the same"} | compared(answerer(asked, **SAME), found, ["unmerged"], questions),
        {"arguments": "each one's defaults"}
        | compared(answerer(asked), found, ["unmerged", "tokens", "long"], questions),
    ]
    if args.output:
        args.output.write_text(json.dumps({"rows": rows, "found": found}, indent=1) + "\n")
    return rows


def shown(rows: Sequence[dict]) -> Iterator[str]:
    for row in rows:
        yield ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--model", type=Path, required=True, help="folder of a question-answering model of transformers"
    )
    p.add_argument("--file", type=Path, required=True, help="SQuAD JSON, for example dev-v1.1.json")
    p.add_argument("--questions", type=int, default=2000)
    p.add_argument(
        "--environments", type=Path, default=ROOT / ".environments", help="where the pipeline's is kept"
    )
    p.add_argument("--output", type=Path, help="JSON of every answer of the pipeline")
    json_flag(p)
    args = p.parse_args()
    rows = run(args)
    save_rows(args.json, rows, data=f"{rows[0]['questions']} questions of {args.file.name}")
    print("\n".join(shown(rows)))


if __name__ == "__main__":
    sys.exit(guarded(main))
