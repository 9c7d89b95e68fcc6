"""Make a run of a model that was trained elsewhere: it is then compared, gated, registered and served like your own.

The model is a folder or a model of the Hugging Face hub that answers questions or classifies texts, or a base with an
adapter, as PEFT's save_pretrained wrote it, which is merged into it. Nothing is trained: validation decides what is to be
decided (the threshold of "no answer", the calibration), the test set is scored once, and no code of a checkpoint is run.
"""

import _path  # noqa: F401  # isort: skip
import sys

from common.cli import Parser, guarded
from common.training.command_line import add_fields
from common.training.settings import RunArgs

EXAMPLES = """examples:
  python scripts/import_model.py --model_checkpoint deepset/roberta-base-squad2 --data_dir squad_data
  python scripts/import_model.py --model_checkpoint bert-base-uncased --adapter my-lora --data_dir squad_data
  python scripts/register_best.py
"""

SETTINGS = (
    "data_dir", "max_length", "doc_stride", "max_answer_length", "n_best", "max_validation_samples", "max_test_samples",
    "seed", "experiment_name", "run_name", "output_dir", "skip_finished",
)  # fmt: skip
"""The settings of a training that a model of others has too."""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument(
        "--model_checkpoint",
        metavar="BASE",
        help="folder or hub id; of an adapter its base (default: the one that it names)",
    )
    made.add_argument("--adapter", metavar="DIR", help="folder with an adapter in PEFT's format")
    made.add_argument("--technique", metavar="NAME", help="what tables and plots call it (default: Imported)")
    add_fields(made, RunArgs, SETTINGS)
    return made


def main() -> None:
    args = parser().parse_args()
    # Its libraries take seconds to import.
    from common.inference.importing import import_model

    settings = RunArgs(**{name: getattr(args, name) for name in SETTINGS})
    import_model(args.model_checkpoint, settings, adapter=args.adapter, called=args.technique)


if __name__ == "__main__":
    sys.exit(guarded(main))
