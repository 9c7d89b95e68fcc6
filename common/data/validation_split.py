"""A validation part carved out of the training examples, so that no paragraph or text is on both sides."""

import random
from collections import Counter, defaultdict

from ..errors import UserError
from .record import Example


def carve(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example], str]:
    """(train, validation, "article" or "paragraph"): whole articles drawn by the seed until validation has its share.

    Articles that have a paragraph in common stay together. If that leaves a single group, paragraphs are drawn.
    """
    _check_share(share)
    unit, groups = "article", _groups(examples, "title")
    if len(set(groups)) == 1:
        unit, groups = "paragraph", _groups(examples, "context")
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise UserError(
            "The training data has a single paragraph; no validation part can be carved out of it."
        )
    names = sorted(sizes)
    random.Random(seed).shuffle(names)
    chosen: set[str] = set()
    size = 0
    for name in names:
        if size >= share * len(examples):
            break
        # An article that would overshoot the share by more than it fills stays in train.
        if size + sizes[name] <= 1.5 * share * len(examples) and len(chosen) < len(names) - 1:
            chosen.add(name)
            size += sizes[name]
    if not chosen:
        chosen = {min(names, key=sizes.__getitem__)}
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example, name in zip(examples, groups, strict=True):
        sides[name in chosen].append(example)
    return *sides, unit


def carve_by_label(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(train, validation): texts drawn by the seed until validation has its share of each label.

    Rows with the same text stay together, under the label of the first of them.
    """
    _check_share(share)
    rows = Counter(e["text"] for e in examples)
    label: dict[str, int] = {}
    for e in examples:
        label.setdefault(e["text"], e["label"])
    texts: dict[int, list[str]] = defaultdict(list)
    total: Counter[int] = Counter()
    for text in sorted(label):
        texts[label[text]].append(text)
        total[label[text]] += rows[text]
    chosen: set[str] = set()
    for name, of_label in sorted(texts.items()):
        random.Random(seed).shuffle(of_label)
        size = 0
        # At least one text, and never all.
        for text in of_label[:-1]:
            if size and size + rows[text] > share * total[name]:
                break
            chosen.add(text)
            size += rows[text]
    sides: tuple[list[Example], list[Example]] = ([], [])
    for e in examples:
        sides[e["text"] in chosen].append(e)
    return sides


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"--validation_share is {share}: it must be between 0 and 1.")


def _groups(examples: list[Example], by: str) -> list[str]:
    """For each example the name of its group: its title (or context), merged where contexts are shared."""
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
