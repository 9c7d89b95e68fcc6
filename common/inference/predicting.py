"""A file asked of a model, block by block: constant memory, order kept, and a killed run goes on where it was."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from ..data.record import Example
from ..errors import UserError
from .blocks import Answers, Journal, blocks, digest
from .models import Model
from .outputs import Outputs
from .source import Source

N_BEST = 20
"""Candidates for each question in an n-best list."""

Block = tuple[int, list[Example]]
"""A block's number in the stream, and its examples."""

Backend = Callable[[Iterator[Block]], Iterator[tuple[int, list[Example], Answers]]]
"""Answers blocks, in any order."""

Backends = Callable[[Model, Mapping[str, Any]], AbstractContextManager[Backend]]
"""(model, parameters of each request) → what answers blocks, for as long as the context lasts."""


@dataclass(frozen=True)
class Predicted:
    """What `predict` did."""

    examples: int
    files: list[str]


@contextmanager
def here(model: Model, asked: Mapping[str, Any]) -> Iterator[Backend]:
    """This process answers."""

    def answering(waiting: Iterator[Block]) -> Iterator[tuple[int, list[Example], Answers]]:
        for number, block in waiting:
            yield number, block, answer(model, asked, block)

    yield answering


def predict(
    model: Model,
    source: Source,
    outputs: Outputs,
    *,
    parameters: Mapping[str, Any] | None = None,
    resume: bool = False,
    backends: Backends = here,
) -> Predicted:
    """Ask a model every example of a source and write the outputs.

    parameters: further ones of a request, such as `null_threshold`. resume: go on with the journal of a run that was killed;
    what is written is the same as without the interruption. backends: gives what answers the blocks, once the parameters and
    the data are checked. UserError names an example that cannot be answered.
    """
    asked = request(model, outputs, parameters or {})
    total = source.count()
    folder = outputs.predictions.with_name(f".{outputs.predictions.name}.blocks")
    identity = {"model": model.origin.content, "parameters": asked}
    with Journal(folder, identity, resume) as journal:
        with (
            backends(model, asked) as answering,
            tqdm(
                total=total,
                initial=journal.examples,
                unit=f" {model.task.unit}",
                desc="predict",
                file=sys.stderr,
            ) as bar,
        ):
            for number, block, answers in answering(_waiting(journal, source, model.asked)):
                journal.put(number, digest(block, model.asked), answers)
                bar.update(len(block))
        if not journal.examples:
            raise UserError(f"{source.name} holds no examples.")
        count = journal.examples
        files = outputs.write(journal.answers)
        journal.remove()
    return Predicted(count, [str(file) for file in files])


def request(model: Model, outputs: Outputs, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a model is asked with; UserError where it does not take one that an output needs."""
    asked = {name: value for name, value in parameters.items() if value is not None}
    if outputs.n_best:
        if "top_k" not in model.parameters:
            raise UserError(f"--n_best: {model.name} gives one answer to a question; leave --n_best out.")
        asked["top_k"] = N_BEST
    if outputs.null_odds:
        if "null_odds" not in model.parameters:
            raise UserError(
                f'--null_odds: {model.name} does not say how likely "no answer" is: it does not choose among spans, or was '
                "logged by an earlier version of the suite; leave --null_odds out."
            )
        asked["null_odds"] = True
    for name in asked:
        if name not in model.parameters:
            raise UserError(
                f"--{name}: {model.name} does not take it: there are {', '.join(model.parameters)}."
            )
    return asked


def _waiting(journal: Journal, source: Source, asked: Sequence[str]) -> Iterator[Block]:
    """The blocks that the journal does not have."""
    count = 0
    for number, block in enumerate(blocks(source.examples(), asked)):
        count = number + 1
        if not journal.has(number, digest(block, asked)):
            yield number, block
    journal.check_end(count)


def answer(model: Model, parameters: Mapping[str, Any], block: Sequence[Example]) -> Answers:
    """A row for each example: `id`, the question where there is one, and what the model gave, as JSON holds it.

    The windows of the whole block are batched by their length.
    """
    rows = [{name: example[name] for name in model.asked} for example in block]
    with _explained(block):
        found = model.predict(rows, **parameters)
    shown = [name for name in model.asked if name == "question"]
    return [
        {"id": example["id"], **{name: example[name] for name in shown}, **given}
        for example, given in zip(block, found.to_dict("records"), strict=True)
    ]


@contextmanager
def _explained(block: Sequence[Example]) -> Iterator[None]:
    """Within it, a refusal of "row N" names the example."""
    try:
        yield
    except UserError as error:
        reason = str(error)
        if (match := re.search(r"\brow (\d+)\b", reason)) and int(match[1]) < len(block):
            id_ = block[int(match[1])]["id"]
            raise UserError(f"{reason[: match.start()]}{id_!r}{reason[match.end() :]}") from None
        raise
