"""The settings of a run: the technique's own fields, and the fields that every run has; `refusals.py` refuses values."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..bounds import LARGE, SEEDS, Bounds
from ..models.families import Family
from ..paths import ROOT
from ..tasks.table import DEFAULT_TASK, TASKS, task_of
from ..tracking.replicates import ABOUT_THE_RUN
from .rates import Rate, Rates

if TYPE_CHECKING:
    # Importing it takes seconds, which --help need not.
    from peft import PeftConfig

    from ..models.methods import Method

TECHNIQUE, MODEL, DATA, TRAINING, TRACKING = GROUPS = (
    "technique",
    "model",
    "data",
    "training",
    "tracking and resuming",
)
"""What flags are grouped by in --help, in this order."""


def option(default: Any, help: str, group: str = TECHNIQUE, **bounds: Any) -> Any:
    """A dataclass field that is a flag. help: the flag's help. group: one of GROUPS. bounds: the values that it may have, as
    `Bounds` names them; a Literal type needs none.

    A list as default is copied for each instance.
    """
    metadata = {"help": help, "group": group, "bounds": Bounds(**bounds)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


_EVERY_SIZE = Rates(*[Rate(3e-5, "that of a technique that names none")] * 3)


@dataclass(frozen=True)
class Technique:
    """A way to fine-tune: its hyper-parameters are its fields, its method is what it makes of them."""

    name: ClassVar[str]
    """As tables and plots show it."""
    key: ClassVar[str]
    """As families name it when they refuse it."""

    needs: ClassVar[str] = ""
    """The field without which it is no technique yet, such as a file that names one; "" where the defaults make one."""
    rates: ClassVar[Rates] = _EVERY_SIZE
    """What `learning_rate` is, by the size of the model, where it is not set."""

    learning_rate: float | None = option(
        None, "peak learning rate, reached after the warm-up", above=0, maximum=LARGE
    )
    num_train_epochs: float = option(2.0, "passes over the training questions", above=0, maximum=10**6)
    weight_decay: float = option(
        0.0,
        "weight decay (AdamW's is decoupled); biases and layer norms are left out",
        minimum=0,
        maximum=LARGE,
    )

    def method(self, family: Family) -> "PeftConfig | Method | None":
        """PEFT's config for this family, a method of the suite's own, or None to train all weights."""
        return None

    def rate_factor(self, parameter: str) -> float:
        """What the learning rate of a parameter, given by its name, is multiplied by."""
        return 1.0

    @property
    def virtual_tokens(self) -> int:
        """Tokens that the technique puts in front of the embedded input (they take room in the position table)."""
        return 0


def _listed(names: list[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


PACKING = _listed([task.name for task in TASKS.values() if task.packs])
"""The tasks whose batches can be packed."""

WEIGHING = _listed([task.name for task in TASKS.values() if task.weighs_classes])
"""The tasks whose classes can be weighted."""

DISTILLING = _listed([task.name for task in TASKS.values() if task.distils])
"""The tasks whose students can have a teacher."""


@dataclass(frozen=True)
class RunArgs:
    """The fields that every run has, whatever its technique."""

    task: str = option(DEFAULT_TASK, "what the model is trained for", MODEL, choices=TASKS.keys())
    model_checkpoint: str = option(
        "auto",
        "hub id, local folder, a model of the store to go on from (models:/NAME@ALIAS, runs:/ID/model), 'embedded' (the packaged MiniLM-L6 BERT), 'embedded-distilbert' (the same weights as a "
        "DistilBERT), or 'auto': bert-base-uncased if the cache or the hub has it, else embedded",
        MODEL,
    )
    data_dir: str | None = option(
        None,
        "prepared data (see scripts/prepare_data.py); default: squad_data, or the task's; made if it is missing",
        DATA,
    )
    max_length: int = option(
        384,
        "longest window in tokens; longer contexts are cut into several, longer texts are cut off",
        DATA,
        minimum=1,
        maximum=10**6,
    )
    doc_stride: int = option(128, "tokens that neighbouring windows share", DATA, minimum=0, maximum=10**6)
    max_answer_length: int = option(30, "longest answer in tokens", DATA, minimum=1, maximum=10**6)
    n_best: int = option(20, "candidates kept for each question", DATA, minimum=1, maximum=10**6)
    max_train_samples: int | None = option(
        None,
        "train on this many questions, or texts balanced by label, drawn by the seed; a larger draw contains a smaller one",
        DATA,
        minimum=1,
        maximum=10**9,
    )
    max_validation_samples: int | None = option(
        None, "validate on this many, drawn likewise", DATA, minimum=1, maximum=10**9
    )
    max_test_samples: int | None = option(
        None, "test on this many, drawn likewise", DATA, minimum=1, maximum=10**9
    )
    batch_size: int = option(8, "windows in a batch on each device", TRAINING, minimum=1, maximum=10**6)
    gradient_accumulation_steps: int = option(
        1, "batches that make one optimizer step", TRAINING, minimum=1, maximum=10**6
    )
    max_grad_norm: float = option(
        1.0, "gradients are scaled down to this norm", TRAINING, above=0, maximum=LARGE
    )
    warmup_ratio: float = option(
        0.1,
        "share of the steps in which the learning rate rises; it then changes as --lr_scheduler_type says",
        TRAINING,
        minimum=0,
        below=1,
    )
    lr_scheduler_type: Literal[
        "linear", "cosine", "polynomial", "inverse_sqrt", "constant_with_warmup", "constant"
    ] = option(
        "linear",
        "how the learning rate changes after the warm-up: linear and cosine fall to 0, polynomial (of power 1) to 1e-7, "
        "inverse_sqrt falls with the square root of the steps, constant_with_warmup stays; constant has no warm-up",
        TRAINING,
    )
    optim: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop"] = option(
        "adamw_torch_fused",
        "optimizer, by its name in transformers; the default learning rates are for AdamW, the others need different ones",
        TRAINING,
    )
    head_learning_rate: float | None = option(
        None, "peak learning rate of the head; default: --learning_rate", TRAINING, above=0, maximum=LARGE
    )
    layer_decay: float = option(
        1.0,
        "each block learns at the rate of the block above it times this factor; the last block and the head learn at "
        "--learning_rate, the embeddings at the lowest rate; 1: all at one rate",
        TRAINING,
        above=0,
        maximum=1,
    )
    label_smoothing: float = option(
        0.0,
        "share of each label's probability that is spread evenly over all labels, or over the real tokens of a window",
        TRAINING,
        minimum=0,
        below=1,
    )
    gradient_checkpointing: bool = option(
        False,
        "keep only the input of each block and compute the rest again in the backward pass: less memory, more time, the "
        "same gradients",
        TRAINING,
    )
    freeze_embeddings: bool = option(
        False, "do not train the embeddings (for a technique that trains all weights)", TRAINING
    )
    average_last: int | None = option(
        None,
        "also try the mean of the weights after each of the last N epochs; it is kept if its validation score is higher "
        "than that of the best epoch",
        TRAINING,
        minimum=2,
        maximum=1000,
    )
    early_stopping_patience: int | None = option(
        None,
        "stop after this many epochs without a better validation F1 (or accuracy)",
        TRAINING,
        minimum=1,
        maximum=10**6,
    )
    seed: int = option(
        42,
        "decides the new head, the adapter, the order of the data and dropout",
        TRAINING,
        minimum=0,
        maximum=SEEDS,
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = option(
        "auto",
        "number format of the computation; auto: half precision on a GPU that has it, else fp32; on a CPU bf16 is for the "
        "products of linear layers alone",
        TRAINING,
    )
    pack_batches: bool = option(
        False,
        "lay a batch's windows end to end, so that no padding is computed; batches grouped by length were faster where both "
        f"were measured ({PACKING}, encoders with absolute positions, no virtual tokens)",
        TRAINING,
    )
    class_weights: Literal["none", "balanced"] = option(
        "none",
        f"balanced: the rarer a label is among the training texts, the more its texts count in the loss ({WEIGHING})",
        TRAINING,
    )
    teacher: str | None = option(
        None,
        "also learn from the logits of this trained model (distillation): models:/NAME@ALIAS, runs:/ID/model, a folder or a "
        f"hub id ({DISTILLING})",
        TRAINING,
    )
    distillation_weight: float = option(
        0.5,
        "weight of the teacher in the loss; the labels have the rest",
        TRAINING,
        minimum=0,
        maximum=1,
    )
    distillation_temperature: float = option(
        2.0,
        "the logits of teacher and student are divided by it: the higher it is, the more the unlikely answers count",
        TRAINING,
        above=0,
        maximum=100,
    )
    torch_compile: str = option(
        "",
        "backend to compile the model with: inductor is meant for long runs on a GPU, and does not pay on a CPU; default: none",
        TRAINING,
    )
    experiment_name: str | None = option(
        None,
        "MLflow experiment; default: MLFLOW_EXPERIMENT_NAME, else the name of the data (prepare_data.py --name), else squad-qa, "
        "or the task's",
        TRACKING,
    )
    run_name: str | None = option(None, "name of the MLflow run; default: the technique's", TRACKING)
    parent_run: str | None = option(
        None, "id of the MLflow run that this one is a child of (a study's)", TRACKING
    )
    report_to: list[Literal["mlflow", "wandb"]] = option(
        ["mlflow"],
        "where the run is logged: always to MLflow; wandb: to Weights & Biases too",
        TRACKING,
    )
    logging_steps: int = option(
        10, "steps between two points of the loss curve", TRACKING, minimum=1, maximum=10**9
    )
    gradient_norms: bool = option(
        False,
        "record the gradient norm of each layer at the logging steps: gradient_norms.json and a figure",
        TRACKING,
    )
    output_dir: str | None = option(
        None,
        "folder for checkpoints until the run has finished; default: one below mlruns/ that its content names",
        TRACKING,
    )
    save_steps: int = option(
        500,
        "steps between checkpoints within an epoch; the end of an epoch always makes one",
        TRACKING,
        minimum=1,
        maximum=10**9,
    )
    resume: bool = option(False, "go on from the last checkpoint, in the same MLflow run", TRACKING)
    skip_finished: bool = option(
        False, "do nothing if MLflow already holds a finished run of the same content", TRACKING
    )


_NOT_RESOLVED = {*ABOUT_THE_RUN, "data_dir", "model_checkpoint", "teacher"}
"""Fields that do not change what is computed, and three whose resolved content is fingerprinted instead of their text."""


def settled(args: RunArgs) -> RunArgs:
    """With the data folder that its task decides; the experiment is for the store to settle (`experiments.experiment_name`)."""
    task = task_of(args.task)
    return replace(args, data_dir=args.data_dir or str(ROOT / task.data_dir))


def resolved(technique: Technique, args: RunArgs) -> dict[str, Any]:
    """Every field that decides what is computed, flat, as logged and fingerprinted."""
    shared = {name: value for name, value in asdict(args).items() if name not in _NOT_RESOLVED}
    if args.teacher is None:
        shared = {name: value for name, value in shared.items() if not name.startswith("distillation_")}
    return {"technique": technique.name, **asdict(technique), **shared}


def run_fingerprint(settings: dict[str, Any], **content: str) -> str:
    """sha256 of a run: its resolved settings and the fingerprints of everything else that decides its result."""
    return hashlib.sha256(
        json.dumps({"settings": settings, "content": content}, sort_keys=True).encode()
    ).hexdigest()
