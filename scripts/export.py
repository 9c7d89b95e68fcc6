"""Write a stored model into a folder that others open without this project.

  merged    what was trained is in the weights: AutoModelForQuestionAnswering.from_pretrained (or the class of the model's
            task) opens the folder with transformers alone
  adapter   what was trained beside its base: PeftModel.from_pretrained opens it; the base lies in base/, unless it is a model
            of the hub
  onnx      model.onnx and model_quantized.onnx (8 bits) for ONNX Runtime and optimum

The folder has the tokenizer, which knows the length of training and the model's inputs. Before it gets its name, it is opened
in a process without this project, and must give the logits that the stored model gives. README.md is its model card: figures
with intervals, limits, settings, and a program that asks it. docs/EXPORT.md says which technique leaves in which format.
"""

import _path  # noqa: F401  # isort: skip
import sys
from pathlib import Path

from common.cli import Parser, guarded

EXAMPLES = """examples:
  python scripts/export.py models:/bert-squad-qa@champion --to my-model
  python scripts/export.py RUN_ID --to my-adapter --format adapter
  python scripts/export.py models:/bert-squad-qa@champion --to my-model --push_to_hub my-org/my-model --private
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument(
        "model",
        metavar="MODEL",
        help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model, a run's id, or the folder of a stored model",
    )
    made.add_argument("--to", required=True, type=Path, metavar="DIR", help="a new or empty folder")
    made.add_argument(
        "--format", default="merged", metavar="NAME", help="one of those above (default: %(default)s)"
    )
    made.add_argument(
        "--license",
        metavar="ID",
        help="for the model card, as the hub calls it: apache-2.0, mit (default: none is named)",
    )
    made.add_argument(
        "--push_to_hub",
        metavar="ORG/NAME",
        help="also upload the folder, as a new repository of the Hugging Face hub (hf auth login comes first)",
    )
    made.add_argument("--private", action="store_true", help="make that repository private")
    return made


def main() -> None:
    args = parser().parse_args()
    # Its libraries take seconds to import.
    from common.api import export

    done = export(
        args.model,
        args.to,
        args.format,
        license=args.license,
        push_to_hub=args.push_to_hub,
        private=args.private,
    )
    print("\n".join(done.lines))


if __name__ == "__main__":
    sys.exit(guarded(main))
