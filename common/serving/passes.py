"""A served model computes the inputs of several requests in one pass.

Inputs that find a free core are computed at once. Those that have to wait for one are computed together with others that
wait, so nothing ever waits in order to be batched. Every row gets what it gets alone, up to rounding: only models whose
numbers depend on the other rows of a batch are left out (`computed_together`).
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from ..tasks.batching import tokens_per_batch
from .observed import observed
from .runtime import Cores, share_cores, shared_cores

_log = logging.getLogger(__name__)

PER_TOKEN = ("start_logits", "end_logits")
PER_ROW = ("logits",)
"""The outputs that are handed back: (rows, length) and (rows, classes)."""

PADDING = 0.25
"""The share of padding among the tokens that a call may add to a pass: with more, two passes take less time than one."""


@dataclass(frozen=True, eq=False)
class Call:
    """One batch of one request. inputs: (rows, length) integers; pad_token_id: what pads `input_ids`."""

    model: torch.nn.Module
    inputs: Mapping[str, torch.Tensor]
    pad_token_id: int
    answered: "Future[Any]" = field(default_factory=Future)

    @property
    def rows(self) -> int:
        return self.inputs["input_ids"].shape[0]

    @property
    def length(self) -> int:
        return self.inputs["input_ids"].shape[1]


class Passes:
    """Computes calls in threads of its own, at most as many at once as there are cores."""

    def __init__(self, shared: Cores):
        self._cores = shared
        self._waiting: list[Call] = []
        # Few threads, because each keeps buffers and helpers of its own.
        self._threads = ThreadPoolExecutor(max(1, shared.count // shared.least), "pass")

    def compute(self, call: Call) -> Any:
        """The model's outputs for this call; raises what the model raises for it alone."""
        with self._cores.changed:
            self._waiting.append(call)
        self._threads.submit(self._next)
        return call.answered.result()

    def _next(self) -> None:
        """Compute the oldest call and what is computed with it, unless an earlier pass took all."""
        shared = self._cores
        with shared.changed:
            shared.changed.wait_for(lambda: not self._waiting or shared.free >= shared.least)
            if not self._waiting:
                return
            calls = chosen(self._waiting, shared.free // shared.least)
            self._waiting = [call for call in self._waiting if call not in calls]
            taken = shared.share(len(self._waiting))
        try:
            _count(calls)
            # Of this thread; others keep theirs.
            torch.set_num_threads(taken)
            answer(calls)
        finally:
            shared.give(taken)


def _count(calls: Sequence[Call]) -> None:
    tokens = sum(int(call.inputs["attention_mask"].sum()) for call in calls)
    rows, longest = sum(call.rows for call in calls), max(call.length for call in calls)
    try:
        observed().computed(len(calls), rows, tokens, rows * longest)
    except Exception:
        # A counter that cannot be written, on a full disk for example, holds nobody's answer.
        _log.exception("A pass was not counted")


def chosen(waiting: Sequence[Call], places: int) -> list[Call]:
    """The calls of the next pass: the oldest one, and of those for the same model the ones that are nearest to it in length.

    places: passes that can begin now; each gets its part of the calls. A pass has at most `tokens_per_batch` padded tokens
    (one call may have more) and little padding.
    """
    oldest, most = waiting[0], -(-len(waiting) // places)
    limit = tokens_per_batch(oldest.model, oldest.inputs["input_ids"].device)
    found, rows, longest, padded = [oldest], oldest.rows, oldest.length, oldest.rows * oldest.length
    near = sorted(waiting[1:], key=lambda call: abs(call.length - oldest.length))
    for call in near:
        if len(found) == most:
            break
        with_it = (rows + call.rows) * max(longest, call.length)
        dear = (with_it - padded) * (1 - PADDING) > call.rows * call.length
        if call.model is oldest.model and with_it <= limit and not dear:
            found.append(call)
            rows, longest, padded = rows + call.rows, max(longest, call.length), with_it
    return found


def answer(calls: Sequence[Call]) -> None:
    """Give each call its outputs, or the error that it causes alone."""
    try:
        outputs = computed(calls)
    except BaseException as error:
        if len(calls) == 1:
            calls[0].answered.set_exception(error)
            return
        for call in calls:
            answer([call])
        return
    for call, output in zip(calls, outputs, strict=True):
        call.answered.set_result(output)


@torch.inference_mode()
def computed(calls: Sequence[Call]) -> list[Any]:
    """The outputs of calls for one model, computed in one batch."""
    model = calls[0].model
    if len(calls) == 1:
        return [model(**calls[0].inputs)]
    rows, longest = sum(call.rows for call in calls), max(call.length for call in calls)
    batch = {}
    for name, tensor in calls[0].inputs.items():
        padding = calls[0].pad_token_id if name == "input_ids" else 0
        batch[name] = tensor.new_full((rows, longest), padding)
        begin = 0
        for call in calls:
            batch[name][begin : begin + call.rows, : call.length] = call.inputs[name]
            begin += call.rows
    out = model(**batch)
    parts, begin = [], 0
    for call in calls:
        own = slice(begin, begin + call.rows)
        begin += call.rows
        found = {name: out[name][own, : call.length] for name in PER_TOKEN if name in out}
        found |= {name: out[name][own] for name in PER_ROW if name in out}
        parts.append(SimpleNamespace(**found))
    return parts


class Together(torch.nn.Module):
    """A model in evaluation mode, called as before, whose calls are computed in common passes."""

    def __init__(self, model: torch.nn.Module, passes: Passes, pad_token_id: int):
        super().__init__()
        self.model, self.passes, self.pad_token_id = model, passes, pad_token_id
        self.config = model.config
        if hasattr(model, "tokens_per_batch"):
            self.tokens_per_batch = model.tokens_per_batch
        self.eval()

    def forward(self, **inputs: torch.Tensor) -> Any:
        """The outputs by name, as attributes: PER_TOKEN and PER_ROW."""
        seen = observed().current.get()
        if seen is not None and seen.traced:
            seen.tokens += int(inputs["attention_mask"].sum())
        return self.passes.compute(Call(self.model, inputs, self.pad_token_id))


def computed_together(
    model: torch.nn.Module, pad_token_id: int, runtime: str, argv: Sequence[str] | None = None
) -> torch.nn.Module:
    """In a server, the model with calls that are computed together, within this worker's share of the cores; else the model.

    runtime: of its `BundleInfo`. Calls of ONNX Runtime take turns instead (`share_cores`): it computes several rows no faster
    than one after another, and an int8 model measures its activations over the whole batch, so its answers would depend on
    other people's questions.
    """
    if runtime.startswith("onnx"):
        turns = share_cores(model, argv)
        if turns is not None:
            model.open_for(turns.parts)
        return model
    shared = shared_cores(argv)
    return model if shared is None else Together(model, passes_of_process(shared), pad_token_id)


@functools.cache
def passes_of_process(shared: Cores) -> Passes:
    """The passes of the whole process, however many models it holds."""
    return Passes(shared)
