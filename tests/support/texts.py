"""A small sentiment data set: what a text says decides its label, so that a tiny model can learn it."""

import csv
import random

GOOD = "blood heart sun flowers prize dance shared".split()
BAD = "ridge plates drift apart hive angle husband".split()


def make_texts(n: int, seed: int = 0) -> list[dict]:
    """`n` different texts, negatives first, as many of each label."""
    rng = random.Random(seed)
    rows = []
    for label, words in ((0, BAD), (1, GOOD)):
        for i in range(n // 2):
            said = " ".join(rng.choices(words, k=rng.randint(3, 20)))
            rows.append({"text": f"The {said} in 19{i} and {seed}.", "label": label})
    return rows


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path
