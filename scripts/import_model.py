"""Make a run of a model that was trained elsewhere: it is then compared, gated, registered and served like your own.

The model is a folder or a model of the Hugging Face hub that answers questions or classifies texts, or a base with an
adapter, as PEFT's save_pretrained wrote it, which is merged into it. Nothing is trained: validation decides what is to be
decided (the threshold of "no answer", the calibration), the test set is scored once, and no code of a checkpoint is run.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import sys
from dataclasses import fields
from typing import Any

from common.bounds import number
from common.cli import Parser, guarded

EXAMPLES = """examples:
  python scripts/import_model.py --model_checkpoint deepset/roberta-base-squad2 --data_dir squad_data
  python scripts/import_model.py --model_checkpoint bert-base-uncased --adapter my-lora --data_dir squad_data
  python scripts/register_best.py
"""


def parser() -> Parser:
    made = Parser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--model_checkpoint",
        metavar="BASE",
        help="folder or hub id; of an adapter its base (default: the one that it names)",
    )
    made.add_argument("--adapter", metavar="DIR", help="folder with an adapter in PEFT's format")
    made.add_argument("--technique", metavar="NAME", help="what tables and plots call it (default: Imported)")
    made.add_argument("--data_dir", metavar="DIR", help="prepared data (default: that of the model's task)")
    for name, unit in (
        ("max_length", "longest window in tokens"),
        ("doc_stride", "tokens that windows share"),
        ("max_answer_length", "longest answer in tokens"),
        ("n_best", "candidates kept for each question"),
        ("max_validation_samples", "validate on this many"),
        ("max_test_samples", "test on this many"),
        ("seed", "draws them"),
    ):
        made.add_argument(f"--{name}", type=number(minimum=0), metavar="N", help=unit)
    made.add_argument("--experiment_name", metavar="NAME", help="MLflow experiment (default: the task's)")
    made.add_argument("--run_name", metavar="NAME", help="name of the MLflow run (default: the technique's)")
    made.add_argument(
        "--output_dir",
        metavar="DIR",
        help="folder for files until the run has finished (default: below mlruns/)",
    )
    made.add_argument(
        "--skip_finished",
        action="store_true",
        help="do nothing if MLflow already holds a finished run of the same content",
    )
    return made


def main() -> None:
    given = vars(parser().parse_args())
    name, adapter, called = (given.pop(key) for key in ("model_checkpoint", "adapter", "technique"))
    # Its libraries take seconds to import.
    from common.inference.importing import import_model
    from common.training.settings import RunArgs

    known = {field.name for field in fields(RunArgs)}
    settings: dict[str, Any] = {k: v for k, v in given.items() if v is not None and k in known}
    import_model(name, RunArgs(**settings), adapter=adapter, called=called)


if __name__ == "__main__":
    sys.exit(guarded(main))
