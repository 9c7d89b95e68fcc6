"""Which techniques are likely to do well, before anything is known about a user's data."""

from collections.abc import Iterable

STANDING = (
    "lora",
    "loha",
    "standard",
    "adalora",
    "bottleneck",
    "oft",
    "fourierft",
    "boft",
    "vera",
    "ia3",
    "lokr",
    "layer-norm",
    "prefix-tuning",
    "bitfit",
    "top-layers",
    "prompt-tuning",
    "prompt-encoder",
    "head",
)
"""Keys by the test F1 of docs/CHOOSING.md, the best first: extractive question answering, 3,000 training questions. FourierFT and
BOFT, which were not trained on as many, stand where they stand with 1,000."""


def ordered(keys: Iterable[str]) -> list[str]:
    """Keys of techniques, those likely to do well first; keys without a standing last, in their own order."""
    places = {key: place for place, key in enumerate(STANDING)}
    return sorted(keys, key=lambda key: places.get(key, len(places)))
