"""The models that teach: found, and refused where they cannot teach a plan's student, before anything is computed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from peft.utils import CONFIG_NAME
from transformers import AutoConfig, AutoTokenizer

from ..errors import UserError, first_line
from ..models import base, bundles
from ..models.base import Checkpoint
from ..models.families import family_of, usable_positions
from ..scratch import scratch
from ..serving import stored_code
from ..tasks.table import head_of
from ..tasks.tokenizer_reading import check_reading
from ..tracking import store
from . import fingerprint, stored_checkpoint
from .settings import RunArgs

if TYPE_CHECKING:
    from .planning import Plan

COMPARED = 50
"""Examples whose tokens are compared to find out whether two tokenizers are the same."""


@dataclass(frozen=True)
class Teacher:
    """A model that teaches."""

    name: str
    """As it is logged: with the number of its version in the place of an alias."""
    content: str
    """What decides its logits: digests of files, or a commit."""
    source: Checkpoint | str
    """A checkpoint with a trained head, or the URI of a logged model."""


def resolve(name: str) -> Teacher:
    """The teacher that --teacher names; UserError if there is none."""
    if not stored_checkpoint.is_stored(name):
        try:
            found = base.resolve_checkpoint(name)
        except UserError as error:
            raise type(error)(str(error).replace("--model_checkpoint", "--teacher")) from None
        return Teacher(found.name, fingerprint.checkpoint(found), found)
    store.configure()
    try:
        named, logged = stored_code.with_version(name), stored_code.logged_model_of(name)
    except store.ERRORS as error:
        raise UserError(f"--teacher {name} cannot be read from the store: {first_line(error)}") from None
    files = {
        file: digest
        for file, digest in (stored_code.from_tags(logged.tags) or {"id": logged.model_id}).items()
        if file.startswith("artifacts/bundle/") or file == "id"
    }
    files["base"] = logged.tags.get(stored_code.BASE, "")
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return Teacher(named, f"logged {digest}", f"models:/{logged.model_id}")


@dataclass(frozen=True)
class Opened:
    """What a teacher's files say."""

    tokenizer: Any
    config: Any
    task: str
    labels: Sequence[str]
    """Names of its classes, in the order of its logits; none for questions."""
    virtual_tokens: int
    checkpoint: Checkpoint
    """Where its tokenizer and config come from."""
    network: Callable[[], torch.nn.Module]
    """Reads its weights."""


def check(planned: "Plan") -> None:
    """UserError where a plan's teacher cannot teach its student, before anything is computed."""
    if planned.teacher is None:
        return
    with opened(planned.teacher, planned) as teacher:
        if check_fit(planned, teacher, base.load_tokenizer(planned.checkpoint)):
            _check_reading(planned, teacher.tokenizer)


@contextmanager
def opened(teacher: Teacher, planned: "Plan") -> Iterator[Opened]:
    """A teacher's files, for as long as the block lasts."""
    if isinstance(teacher.source, Checkpoint):
        yield _of_checkpoint(teacher.source, planned)
        return
    with scratch() as place:
        bundle = stored_checkpoint.trained_bundle(teacher.source, place, f"--teacher {teacher.name}")
        info = bundles.read_bundle(bundle)
        adapter = bundle / "adapter" / CONFIG_NAME
        config = json.loads(adapter.read_text()) if adapter.is_file() else {}
        yield Opened(
            bundles.completed(AutoTokenizer.from_pretrained(bundle / "base", trust_remote_code=False)),
            AutoConfig.from_pretrained(bundle / "base", trust_remote_code=False),
            info.task,
            info.settings.get("labels", ()),
            int(config.get("num_virtual_tokens") or 0),
            Checkpoint(teacher.name, str(bundle / "base")),
            lambda: bundles.load_bundle(bundle, merge=bundles.merges(bundle))[0],
        )


def _of_checkpoint(checkpoint: Checkpoint, planned: "Plan") -> Opened:
    try:
        config = base.load_config(checkpoint)
        family = family_of(config.model_type)
        head = head_of(planned.task, family)
        if head is None:
            raise UserError(f"{checkpoint.name} has no head for {planned.task.name}: name another model.")

        def network() -> torch.nn.Module:
            return base.load_base(checkpoint, head, trained_head=True)[0]

        built = str((config.architectures or ["nothing"])[0])
        if not built.endswith(f"For{head}"):
            raise UserError(
                f"{checkpoint.name} is a {built}, not trained for {planned.task.name}: train it first."
            )
        several = getattr(config, "problem_type", None) == "multi_label_classification"
        task = planned.task.name if several == planned.task.multi_label else "another kind of labels"
        labels = [str(config.id2label[i]) for i in range(config.num_labels)] if planned.record.labels else []
        tokenizer = base.load_tokenizer(checkpoint)
    except UserError as error:
        raise type(error)(f"--teacher {str(error).removeprefix('--model_checkpoint ')}") from None
    return Opened(tokenizer, config, task, labels, 0, checkpoint, network)


def check_fit(planned: "Plan", teacher: Opened, tokenizer: Any) -> bool:
    """Whether a teacher's logits are of other tokens than the student's; UserError where its task, labels or length do not suit."""
    assert planned.teacher is not None
    name, task, args = f"--teacher {planned.teacher.name}", planned.task, planned.args
    if teacher.task != task.name:
        raise UserError(f"{name} was trained for {teacher.task}, not for {task.name}: name another teacher.")
    if sorted(teacher.labels) != sorted(planned.record.labels):
        raise UserError(
            f"{name} has the labels {', '.join(teacher.labels)[:100]}, and {args.data_dir} has "
            f"{', '.join(planned.record.labels)[:100]}: name a teacher with the same."
        )
    others = task.needs_offsets and not _same(tokenizer, teacher.tokenizer, planned)
    room = _room(teacher)
    if room is not None and args.max_length > room:
        if not others:
            raise UserError(f"{name} reads {room} tokens at once: use --max_length {room} or less.")
        try:
            task.check_settings(own_windows(planned, teacher))
        except UserError:
            raise UserError(
                f"{name} reads {room} tokens at once, too few for --doc_stride {args.doc_stride}: use a smaller one."
            ) from None
    return others


def own_windows(planned: "Plan", teacher: Opened) -> RunArgs:
    """The settings of the windows of a teacher with another tokenizer: the student's, as far as it can read."""
    room = _room(teacher)
    return (
        planned.args if room is None else replace(planned.args, max_length=min(planned.args.max_length, room))
    )


def _room(teacher: Opened) -> int | None:
    """Tokens that a teacher reads at once; None: any number."""
    room = usable_positions(teacher.config)
    return None if room is None else room - teacher.virtual_tokens


def _check_reading(planned: "Plan", tokenizer: Any) -> None:
    """UserError where a teacher's tokens cannot be placed in the data's texts, or do not read them."""
    assert planned.teacher is not None
    try:
        check_reading(
            tokenizer,
            planned.splits,
            planned.task,
            name=planned.teacher.name,
            data_dir=str(planned.args.data_dir),
        )
    except UserError as error:
        raise type(error)(str(error).replace("--model_checkpoint", "--teacher", 1)) from None


def _same(tokenizer: Any, other: Any, planned: "Plan") -> bool:
    """Whether two tokenizers have the same vocabulary and make the same tokens of a sample of the training data."""
    if tokenizer.get_vocab() != other.get_vocab():
        return False
    texts = [text for row in islice(planned.splits["train"], COMPARED) for text in planned.task.texts(row)]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    return bool(
        tokenizer(texts)["input_ids"] == other(texts)["input_ids"]
        and tokenizer(*zip(*pairs, strict=True))["input_ids"] == other(*zip(*pairs, strict=True))["input_ids"]
    )
