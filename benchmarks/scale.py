"""Memory and start of a training against the number of its questions, beside the recipe of the Hugging Face documentation.

Questions of a SQuAD file are repeated under new ids until there are as many as wanted. For each number both start twice on
the same data and train a few steps; the second start finds what the first one has tokenized. Prints a Markdown table:
seconds from the start of the process to the end of the first step, and the most memory of the process and those that it
started: private, and in all with the pages of mapped files, which the system takes back when others need them.

  python benchmarks/scale.py --train_file train-v1.1.json --model embedded --questions 10000 100000 1000000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
import psutil
from table_rows import json_flag, save_rows

from common.data import prepared, questions
from common.data.record import DataRecord
from common.data.squad_json import read_squad_json

LENGTHS = {"max_length": 384, "doc_stride": 128}
STEPS, BATCH = 5, 8


def write_data(file: Path, count: int, folder: Path) -> None:
    """Prepared data of so many training questions, and fifty each for validation and test."""
    from datasets import Value

    found = read_squad_json(file).placed
    splits = {
        split: [found[i % len(found)] | {"id": f"{split}-{i}"} for i in range(n)]
        for split, n in zip(prepared.SPLITS, (count, 50, 50), strict=True)
    }
    record = DataRecord(
        source="files",
        name=f"{count} questions",
        version="v1.1",
        files=[],
        seed=0,
        validation_share=0.1,
        counts={split: {"questions": len(part)} for split, part in splits.items()},
        fingerprint=questions.fingerprint(splits),
    )
    answers = {"text": [Value("string")], "answer_start": [Value("int32")]}
    columns = {name: Value("string") for name in ("id", "title", "context", "question")}
    prepared.write(splits, record, folder, columns | {"answers": answers})


def suite(data: Path, model: str, report: Path, count: int) -> None:
    """A LoRA run of the suite, through the function behind its scripts. Writes the time of its first step."""
    from common.api.technique_scripts import techniques
    from common.training.fit import fit
    from common.training.settings import RunArgs
    from common.training.trainer import TaskTrainer

    step = TaskTrainer.training_step

    def first(self, *args, **kwargs):
        done = step(self, *args, **kwargs)
        report.write_text(str(time.time()))
        TaskTrainer.training_step = step
        return done

    TaskTrainer.training_step = first
    lora = techniques()["lora"](num_train_epochs=STEPS * BATCH / count)
    fit(lora, RunArgs(model_checkpoint=model, data_dir=str(data), batch_size=BATCH, **LENGTHS))


def recipe(data: Path, model: str, report: Path) -> None:
    """The documentation's recipe: `datasets.map` with its cache, PEFT, the `Trainer` with its defaults."""
    import datasets
    import peft
    from peers import training_features
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoTokenizer,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    class First(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 1:
                report.write_text(str(time.time()))

    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    network = AutoModelForQuestionAnswering.from_pretrained(model, trust_remote_code=False)
    lora = peft.LoraConfig(task_type="QUESTION_ANS", target_modules=["query", "key", "value", "dense"])
    train = datasets.load_from_disk(str(data))["train"]
    windows = train.map(
        lambda examples: training_features(tokenizer, examples, LENGTHS["max_length"], LENGTHS["doc_stride"]),
        batched=True,
        remove_columns=train.column_names,
    )
    Trainer(
        model=peft.get_peft_model(network, lora),
        args=TrainingArguments(
            str(report.parent / "checkpoints"),
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            label_names=["start_positions", "end_positions"],
        ),
        train_dataset=windows,
        data_collator=default_data_collator,
        callbacks=[First()],
    ).train()


def memory(process: psutil.Process) -> tuple[float, float]:
    """(private memory, resident memory) of a process and those that it started, in MiB."""
    private = resident = 0
    for each in (process, *process.children(recursive=True)):
        try:
            with open(f"/proc/{each.pid}/smaps_rollup") as lines:
                found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB\n")}
        except (OSError, psutil.Error):
            continue
        # Pages that processes share after a fork count once.
        private += found.get("Pss_Anon", found["Anonymous"])
        resident += found["Pss"]
    return private / 2**10, resident / 2**10


def measured(which: str, data: Path, model: str, count: int, scratch: Path) -> dict[str, float]:
    """A start in a process of its own."""
    report = scratch / "first"
    report.unlink(missing_ok=True)
    environment = os.environ | {
        "HF_DATASETS_CACHE": str(scratch / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch / 'mlflow.db'}",
        "HF_HUB_OFFLINE": "1",
    }
    arguments = ["--child", which, "--data", data, "--model", model, "--report", report, "--count", count]
    started, most = time.time(), (0.0, 0.0)
    with open(scratch / f"{which}.log", "w") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env=environment,
            cwd=scratch,
            stdout=log,
            stderr=log,
        )
        process = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                most = tuple(map(max, most, memory(process)))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.25)
        if child.wait():
            raise SystemExit(f"{which} failed:\n{Path(log.name).read_text()[-3000:]}")
    return {
        "first_step_seconds": float(report.read_text()) - started,
        "private_mib": most[0],
        "resident_mib": most[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train_file", type=Path, help="SQuAD file whose questions are repeated")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--recipe_up_to", type=int, default=10**9, help="most questions that the recipe is given"
    )
    json_flag(parser)
    for hidden, kind in (("child", str), ("data", Path), ("report", Path), ("count", int)):
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "suite":
        return suite(args.data, args.model, args.report, args.count)
    if args.child == "recipe":
        return recipe(args.data, args.model, args.report)
    if args.train_file is None:
        parser.error("--train_file is missing: a SQuAD file, whose questions are repeated")
    from common.models import base

    model = base.resolve_checkpoint(args.model).source
    rows = []
    for count in args.questions:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            write_data(args.train_file, count, scratch / "data")
            for which in ("suite", "recipe"):
                if which == "recipe" and count > args.recipe_up_to:
                    continue
                first, second = (measured(which, scratch / "data", model, count, scratch) for _ in range(2))
                row = {"questions": count, "which": which, "first": round(first["first_step_seconds"])}
                row |= {"second": round(second["first_step_seconds"]), "private": round(first["private_mib"])}
                row |= {"again": round(second["private_mib"]), "resident": round(first["resident_mib"])}
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
    save_rows(args.json, rows, data="questions of a SQuAD file, repeated under new ids", model=args.model)
    print(
        "| questions | | first step, first start | second start | private memory | second start | resident |\n"
        "|---:|---|---:|---:|---:|---:|---:|"
    )
    for row in rows:
        print(
            f"| {row['questions']:,} | {row['which']} | {row['first']} s | {row['second']} s | {row['private']:,} MiB "
            f"| {row['again']:,} MiB | {row['resident']:,} MiB |"
        )


if __name__ == "__main__":
    main()
