"""What is refused of a run's settings, before any weight is read: values that no model could train with, and what a family
cannot do."""

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..bounds import check_bounds
from ..errors import NotHere, UserError
from ..models.families import Family, usable_positions
from ..tasks.table import head_of, refusal, task_of
from .settings import DISTILLING, PACKING, WEIGHING, RunArgs, Technique

if TYPE_CHECKING:
    from peft import PeftConfig

    from ..models.methods import Method


def check(technique: Technique, args: RunArgs) -> None:
    """Refuse values that no model could train with; UserError names the flag and the remedy."""
    check_bounds(technique)
    check_bounds(args)
    if args.torch_compile:
        from torch import compiler

        if args.torch_compile not in (known := compiler.list_backends(exclude_tags=())):
            raise UserError(f"--torch_compile is {args.torch_compile!r}: choose one of {', '.join(known)}.")
    if "wandb" in args.report_to and not find_spec("wandb"):
        raise NotHere(
            "--report_to wandb needs Weights & Biases, which is not installed: pip install -r requirements-wandb.txt"
        )
    task = task_of(args.task)
    if args.class_weights != "none" and not task.weighs_classes:
        raise UserError(
            f"--class_weights {args.class_weights} is for {WEIGHING}; {args.task} has no classes: leave it out."
        )
    epochs = math.ceil(technique.num_train_epochs)
    if args.average_last and args.average_last > epochs:
        raise UserError(
            f"--average_last {args.average_last} is more than the {epochs} epochs that are trained: raise --num_train_epochs "
            "or lower it."
        )
    if args.lr_scheduler_type == "polynomial" and (technique.learning_rate or 1) <= 1e-7:
        raise UserError("--lr_scheduler_type polynomial falls to 1e-7: use a higher --learning_rate.")
    _check_teacher(args)
    task.check_settings(args)


def _check_teacher(args: RunArgs) -> None:
    """Refuse a teacher where there can be none, and its settings without one."""
    if args.teacher is None:
        for name in ("distillation_weight", "distillation_temperature"):
            if getattr(args, name) != getattr(RunArgs, name):
                raise UserError(f"--{name} is for runs with a --teacher: name one, or leave it out.")
        return
    if not task_of(args.task).distils:
        raise UserError(
            f"--teacher is for {DISTILLING}; a model for {args.task} writes its answers token after token, and a teacher that "
            "writes another answer has no logits for them: leave it out."
        )
    if args.pack_batches:
        raise UserError(
            "--pack_batches lays out batches without padding, which --teacher needs: leave one out."
        )


def method_of(technique: Technique, family: Family) -> "PeftConfig | Method | None":
    """What a technique makes for a family; UserError where PEFT refuses the technique's values."""
    try:
        return technique.method(family)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{technique.name} cannot be set up with these values: {reason}") from None


def check_model(technique: Technique, args: RunArgs, family: Family, config: Any) -> None:
    """Refuse what this family cannot do, from its config alone, before any weight is read."""
    task = task_of(args.task)
    if reason := refusal(family, technique.key, task):
        raise UserError(
            f"{technique.name} does not work with {family.model_type} for {args.task}: {reason}. "
            "Choose another technique, --model_checkpoint or --task."
        )
    if args.pack_batches:
        from peft import PromptLearningConfig

        virtual = isinstance(method_of(technique, family), PromptLearningConfig)
        if not task.packs or virtual or not family.packs:
            raise UserError(
                f"--pack_batches is for {PACKING} by encoders with absolute positions and the usual attention, without virtual tokens, "
                f"not for {technique.name} on {family.model_type} for {args.task}: leave it out."
            )
    _check_parts(technique, args, family)
    if args.gradient_checkpointing:
        from ..models.parts import can_checkpoint

        if not can_checkpoint(config):
            raise UserError(
                f"--gradient_checkpointing: transformers has none for {family.model_type}: leave it out; if memory is short, "
                "use a smaller --batch_size with more --gradient_accumulation_steps."
            )
    room = usable_positions(config)
    beside = {f"{technique.virtual_tokens} virtual tokens": technique.virtual_tokens}
    beside |= task.further_tokens(args, family.kind)
    taken = sum(beside.values())
    if room is not None and args.max_length + taken > room:
        parts = " and ".join(part for part, tokens in beside.items() if tokens)
        raise UserError(
            f"--max_length {args.max_length}{parts and f' with {parts}'} is longer than the {room} positions of this model: "
            f"use --max_length {room - taken} or less."
        )


def _check_parts(technique: Technique, args: RunArgs, family: Family) -> None:
    """Refuse settings for parts of the model that are not trained, or that there are not."""
    if not (args.head_learning_rate or args.layer_decay < 1 or args.freeze_embeddings):
        return
    from peft import PromptLearningConfig

    from ..models.methods import PartOfWeights

    method, head = method_of(technique, family), head_of(task_of(args.task), family)
    head_alone = isinstance(method, PartOfWeights) and method.part == "head"
    if args.head_learning_rate and not family.heads[str(head)]:
        raise UserError(
            f"--head_learning_rate: models for {args.task} have no head of their own: leave it out."
        )
    if args.head_learning_rate and head_alone:
        raise UserError(f"--head_learning_rate: {technique.name} trains nothing else: use --learning_rate.")
    if args.layer_decay < 1 and (head_alone or isinstance(method, PromptLearningConfig)):
        raise UserError(
            f"--layer_decay: {technique.name} trains nothing in the model's blocks: leave it out."
        )
    if args.freeze_embeddings and method is not None:
        raise UserError(
            f"--freeze_embeddings is for techniques that train all weights; {technique.name} trains a part: leave it out."
        )
