"""A validation part carved out of the training examples, so that no paragraph or text is on both sides."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator

from ..errors import UserError
from ..scoring.groups import groups_of
from .record import Example


def carve(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example], str]:
    """(train, validation, "article" or "paragraph"): whole articles drawn by the seed until validation has its share.

    Articles that have a paragraph in common stay together. If that leaves a single group, paragraphs are drawn.
    """
    _check_share(share)
    unit, groups = "article", groups_of(examples, "title")
    if len(set(groups)) == 1:
        unit, groups = "paragraph", groups_of(examples, "context")
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


def carve_by_label_sets(
    examples: list[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """(train, validation) of examples with several labels each, or of pairs of texts: validation has its share of each label.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): the rarest label is divided first, each of its texts
    going where more of that label are still wanted. Rows with the same text stay together, for a premise or a question that
    is asked again would be known; if all rows have one text, only equal pairs do. Two texts of a label are never both taken
    out of train where the share is at most a half. Where no group is wanted, the smallest one is taken whose labels all stay in
    train; validation is empty if there is none.
    """
    _check_share(share)
    groups: dict[object, list[int]] = defaultdict(list)
    for i, e in enumerate(examples):
        groups[e["text"]].append(i)
    if len(groups) == 1:
        groups = defaultdict(list)
        for i, e in enumerate(examples):
            groups[e.get("text_pair", i)].append(i)
    members = [groups[key] for key in sorted(groups, key=str)]
    random.Random(seed).shuffle(members)
    labels, sizes = [Counter(_labels_of(examples, rows)) for rows in members], list(map(len, members))
    chosen = _divided(labels, sizes, share)
    if not any(chosen):
        total = sum(labels, Counter())
        spare = [i for i, each in enumerate(labels) if all(n < total[label] for label, n in each.items())]
        if spare and len(members) > 1:
            chosen[min(spare, key=sizes.__getitem__)] = True
    in_validation = {i for rows, taken in zip(members, chosen, strict=True) if taken for i in rows}
    sides: tuple[list[Example], list[Example]] = ([], [])
    for i, e in enumerate(examples):
        sides[i in in_validation].append(e)
    return sides


def _labels_of(examples: list[Example], rows: list[int]) -> Iterator[int]:
    for i in rows:
        label = examples[i]["label"]
        yield from label if isinstance(label, list) else [label]


def _divided(labels: list[Counter[int]], sizes: list[int], share: float) -> list[bool]:
    """For each group whether it belongs to validation. labels: of the group's rows; sizes: how many rows it has."""
    holders: dict[int, list[int]] = defaultdict(list)
    total: Counter[int] = Counter()
    for i, each in enumerate(labels):
        total.update(each)
        for label in each:
            holders[label].append(i)
    wanted = [{label: part * n for label, n in total.items()} for part in (1 - share, share)]
    rows = [part * sum(sizes) for part in (1 - share, share)]
    side: list[bool | None] = [None] * len(labels)

    def put(i: int, preferred: tuple[float, float]) -> None:
        # Ties go by the rows that are wanted, then to train.
        taken = (preferred[1], rows[1]) > (preferred[0], rows[0])
        side[i] = taken
        rows[taken] -= sizes[i]
        for label, n in labels[i].items():
            wanted[taken][label] -= n

    # The order by what is left changes little and would cost a search for each label.
    for label in sorted(holders, key=lambda name: (total[name], name)):
        for i in holders[label]:
            if side[i] is None:
                put(i, (wanted[0][label], wanted[1][label]))
    for i, placed in enumerate(side):
        if placed is None:
            put(i, (rows[0], rows[1]))
    return [bool(taken) for taken in side]


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"--validation_share is {share}: it must be between 0 and 1.")
