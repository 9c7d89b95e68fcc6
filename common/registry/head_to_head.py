"""Two models compared on the same test examples, matched by id, with every figure that the gate judges by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..counts import count_of
from ..scoring.names import LABELS
from ..scoring.slices import members
from ..tasks.table import DEFAULT_TASK, task_of
from .gate import CHAMPION, Measured, Rules, Verdict, compared, judge


@dataclass(frozen=True)
class Contender:
    """A version, or a run that may become one."""

    name: str
    """Its name in sentences: "version 3"."""
    tags: Mapping[str, str]
    scores: Mapping[str, float] | None
    """Id of a test example → its deciding score, 0 to 1; None if the scores cannot be read."""
    latency_ms: float = math.nan
    size_mib: float = math.nan
    failed: tuple[str, ...] = ()
    """A sentence for each of its own checks that failed."""
    uri: str = ""
    """Where it is loaded from."""


def contest(
    new: Contender,
    old: Contender | None,
    examples: Mapping[str, Mapping],
    rules: Rules,
) -> tuple[Verdict, list[str]]:
    """(verdict on the new one, a line for each figure that the verdict depends on).

    examples: the test data by id, for the slices; without it slices do not count. Scores are compared on the examples that
    both answered. An incumbent on other data cannot be compared; it is replaced by a candidate that passes its own checks.
    An incumbent on the same data stays if scores cannot be read.
    """
    task = task_of(new.tags.get("task", DEFAULT_TASK))
    lines = [] if old is None else [f"Champion: {old.name}, {_kind(old.tags)}."]
    if old is None or not _same_data(new.tags, old.tags):
        verdict = judge(_measured(new, ()), None, {}, new.failed, rules)
        if old is not None:
            reason = (
                f"{old.name} was champion on other data, {_data(old.tags)}: scores cannot be compared with those on "
                f"{_data(new.tags)}"
            )
            lines.append(sentence(reason))
            if verdict.alias == CHAMPION:
                verdict = replace(verdict, reasons=(reason,))
        return verdict, lines
    theirs = old.scores or {}
    ids = [id_ for id_ in new.scores or {} if id_ in theirs]
    if not ids:
        unread = next((one.name for one in (new, old) if one.scores is None), None)
        reason = (
            f"{old.name} was tested on other examples of the same data"
            if unread is None
            else f"the test predictions of {unread} cannot be read"
        )
        failed = (*new.failed, f"nothing can be compared: {reason}")
        return judge(_measured(new, ()), None, {}, failed, rules), [*lines, sentence(reason)]
    a, b = _measured(new, ids), _measured(old, ids)
    parts = (
        members([examples[id_] for id_ in ids], task.slices) if all(id_ in examples for id_ in ids) else {}
    )
    found = compared(a.scores, b.scores, rules)
    lines += [
        f"{LABELS[task.metric]} on the same {count_of(len(ids), f'test {task.unit}')}: {100 * a.scores.mean():.2f} against "
        f"{100 * b.scores.mean():.2f}: {_interval(found, rules)}, p = {found['p']:.3f}.",
        f"Latency: {_figure(new.latency_ms, 'ms')} against {_figure(old.latency_ms, 'ms')}, {_asked(rules.cheaper_latency)}.",
        f"Size: {_figure(new.size_mib, 'MiB')} against {_figure(old.size_mib, 'MiB')}, {_asked(rules.cheaper_size)}.",
        *_slice_lines(a.scores, b.scores, parts, rules),
    ]
    return judge(a, b, parts, new.failed, rules), lines


def sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}{'' if clause.endswith('.') else '.'}"


def _measured(one: Contender, ids: Sequence[str]) -> Measured:
    known = one.scores or {}
    scores = np.array([known[id_] for id_ in ids], dtype=float)
    return Measured(scores, one.latency_ms, one.size_mib)


def _slice_lines(
    a: np.ndarray, b: np.ndarray, parts: Mapping[tuple[str, str], np.ndarray], rules: Rules
) -> list[str]:
    if not parts:
        return ["Slices: not judged, because the test data is not available."]
    lines = [
        f"Slices ({rules.min_slice} examples or more are judged; a loss beyond {rules.max_slice_loss:g}):"
    ]
    for (dimension, name), indices in parts.items():
        if len(indices) < rules.min_slice:
            result = "too few to judge"
        else:
            result = _interval(compared(a[indices], b[indices], rules), rules)
        scores = f"{100 * a[indices].mean():5.1f} against {100 * b[indices].mean():5.1f}"
        lines.append(f"  {f'{dimension}: {name}':<34} {len(indices):>6,}  {scores}  {result}")
    return lines


def _interval(found: Mapping[str, float], rules: Rules) -> str:
    return f"{found['difference']:+.1f} points [{found['low']:+.1f}, {found['high']:+.1f}] at {rules.confidence:.4g}"


def _asked(share: float | None) -> str:
    return "which does not count" if share is None else f"{share:.0%} less counts as cheaper"


def _figure(value: float, unit: str) -> str:
    return "unknown" if math.isnan(value) else f"{value:.1f} {unit}"


def _kind(tags: Mapping[str, str]) -> str:
    return f"{tags.get('technique', 'of unknown origin')}, run {tags.get('run_id', 'unknown')}"


def _same_data(new: Mapping[str, str], old: Mapping[str, str]) -> bool:
    """Whether both were trained on the same data; a version that was registered by hand has no tags."""
    return old.get("data_fingerprint") is not None and old["data_fingerprint"] == new.get("data_fingerprint")


def _data(tags: Mapping[str, str]) -> str:
    return f"{tags.get('data_name', 'unknown')} ({tags.get('data_fingerprint', 'no fingerprint')[:12]})"
