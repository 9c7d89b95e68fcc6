"""A validation part carved from the training examples, so that no paragraph is on both sides."""

import random
from collections import Counter

from .errors import UserError


def carve(examples: list[dict], share: float, seed: int) -> tuple[list[dict], list[dict], str]:
    """(train, validation, "article" or "paragraph"): whole articles drawn by the seed until validation has its share.

    Articles that have a paragraph in common stay together. Where that leaves a single group, paragraphs are drawn.
    """
    if not 0 < share < 1:
        raise UserError(f"--validation_share is {share}: it must lie between 0 and 1.")
    unit, groups = "article", _groups(examples, "title")
    if len(set(groups)) == 1:
        unit, groups = "paragraph", _groups(examples, "context")
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise UserError(
            "The training data has a single paragraph; there is nothing to carve a validation part from."
        )
    names = sorted(sizes)
    random.Random(seed).shuffle(names)
    chosen, size = set(), 0
    for name in names:
        if size >= share * len(examples):
            break
        # An article that would overshoot by more than it fills is left to train.
        if size + sizes[name] <= 1.5 * share * len(examples) and len(chosen) < len(names) - 1:
            chosen.add(name)
            size += sizes[name]
    if not chosen:
        chosen = {min(names, key=sizes.__getitem__)}
    sides = ([], [])
    for example, name in zip(examples, groups, strict=True):
        sides[name in chosen].append(example)
    return *sides, unit


def _groups(examples: list[dict], by: str) -> list[str]:
    """For each example the name of its group: its title (or context), joined over contexts in common."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    of_context: dict[str, str] = {}
    for e in examples:
        one, other = find(e[by]), find(of_context.setdefault(e["context"], e[by]))
        leader[max(one, other)] = min(one, other)
    return [find(e[by]) for e in examples]
