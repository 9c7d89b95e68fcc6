"""Peak learning rates by the size of the model, each with its source: a technique takes them where none is set."""

from dataclasses import dataclass

SMALL, BASE, LARGE = SIZES = ("small", "base", "large")

FROM = {BASE: 40_000_000, LARGE: 250_000_000}
"""From how many parameters on a model has a size. Those of the word embeddings are not counted: with 250,000 words a model
of base size has more than 250 million parameters (XLM-RoBERTa)."""


@dataclass(frozen=True)
class Rate:
    """A peak learning rate, and what it was taken from."""

    value: float
    source: str


@dataclass(frozen=True)
class Rates:
    """A technique's rate for each size of model."""

    small: Rate
    """For fewer than 40 million parameters, such as MiniLM's."""
    base: Rate
    """Such as for BERT-base and DistilBERT."""
    large: Rate
    """For 250 million parameters and more, such as BERT-large's."""

    def of(self, size: str) -> Rate:
        """The rate of one of SIZES."""
        return {SMALL: self.small, BASE: self.base, LARGE: self.large}[size]

    def __str__(self) -> str:
        """Such as "1e-4 for small models, 3e-5 for base, 1.5e-5 for large ones"."""
        small, base, large = (number(self.of(size).value) for size in SIZES)
        return f"{small} for small models, {base} for base, {large} for large ones"


def by_halves(small: float, source: str) -> Rates:
    """Rates where one for small models is known alone: larger models are trained with lower ones."""
    part = "none is published for question answering by an encoder: {} of a small model's"
    return Rates(
        Rate(small, source),
        Rate(small / 2, part.format("half")),
        Rate(small / 4, part.format("a quarter")),
    )


MEASURED = "measured on MiniLM-L6, docs/CHOOSING.md"
"""Source of the rates that this project measured itself."""


def size_of(parameters: int) -> str:
    """One of SIZES. parameters: without those of the word embeddings."""
    return max((size for size in FROM if parameters >= FROM[size]), key=FROM.__getitem__, default=SMALL)


def number(value: float) -> str:
    """A rate as it is written: 1e-4, 1.5e-5."""
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def chosen(rates: Rates, parameters: int) -> tuple[float, str]:
    """(the rate for a model, why it is taken). parameters: without those of the word embeddings."""
    size = size_of(parameters)
    rate = rates.of(size)
    why = f"default for a {size} model ({parameters / 1e6:.1f} million parameters beside the word embeddings): {rate.source}"
    return rate.value, why
