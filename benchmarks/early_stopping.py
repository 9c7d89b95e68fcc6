"""What a study's `stop` costs and saves: full studies, stopped again and again.

--studies names folders of finished studies that trained every seed (results/STUDY, without `stop`). Each comparison of a
stage with several seeds is replayed --draws times: validation questions drawn with replacement, the same for every
candidate, and the seeds in random order. --recorded names results with one mean a technique, FILE:FIELD such as
docs/results/techniques.json:test_f1; full studies around them are made up: each score is the mean, plus what a seed does to
all candidates (normal, sd --shared_sd), plus a residual (normal, sd --seed_sd). `stop` and the full study then see the same
scores. They agree if the candidate that `stop` calls best is, in the full study, less than --smallest_difference behind the
best. Compute: training seconds where they are known, else runs. Prints a Markdown table.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from table_rows import json_flag, save_rows

from common.cli import guarded
from common.errors import UserError
from common.reports.text_tables import to_markdown
from common.scoring.sequential import SEED_SD, Rule, standing


@dataclass
class Full:
    """A comparison of which every run is known."""

    name: str
    seconds: dict[str, list[float]]
    """Candidate → seconds of each seed's run."""
    each: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Candidate → for each seed, validation question → score in percent; recorded studies."""
    means: dict[str, float] = field(default_factory=dict)
    """Candidate → mean score in percent; made-up studies."""
    seed_sd: float | None = None
    """Points; of made-up studies."""

    @property
    def seeds(self) -> int:
        return len(next(iter(self.seconds.values())))


def of_folder(folder: Path, metric: str) -> Iterator[Full]:
    """The comparisons of a finished study: candidates are what differs in more than the seed."""
    table = folder / "study.csv"
    if not table.is_file():
        raise UserError(f"{table} does not exist: name the folder of a finished study.")
    frame = pd.read_csv(table)
    if (frame["status"] != "finished").any():
        raise UserError(f"{table} has rows that are not finished: a replay needs every run of the study.")
    frame["candidate"] = frame["name"].str.rpartition("-seed=")[0]
    parts = ["stage", *("max_train_samples" for _ in range("max_train_samples" in frame))]
    for (stage, *size), rows in frame.groupby(parts, sort=False, dropna=False):
        if rows["seed"].nunique() < 2 or rows["candidate"].nunique() < 2:
            continue
        named = [f"stage {stage}"] if frame["stage"].nunique() > 1 else []
        named += [f"{each:g} training examples" for each in size]
        full = Full(", ".join([folder.name, *named]), {})
        for candidate, runs in rows.groupby("candidate", sort=False):
            runs = runs.sort_values("seed")
            full.seconds[candidate] = runs["training_seconds"].tolist()
            full.each[candidate] = [validated(folder, name, metric) for name in runs["name"]]
        yield full


def validated(folder: Path, name: str, metric: str) -> dict[str, float]:
    file = folder / "runs" / name / "predictions" / "validation_scores.json"
    if not file.is_file():
        raise UserError(f"{file} does not exist: the scores of each validation question are needed.")
    return {id_: 100 * row[metric] for id_, row in json.loads(file.read_text()).items()}


def of_means(recorded: str, seeds: int, seed_sd: float) -> Full:
    """A study around recorded means."""
    file, _, name = recorded.rpartition(":")
    rows = json.loads(Path(file).read_text())["rows"]
    means = {f"{i} {row['technique']}": row[name] for i, row in enumerate(rows) if name in row}
    if len(means) < 2:
        raise UserError(f"--recorded {recorded}: two rows or more must have {name!r}.")
    ran = {candidate: [1.0] * seeds for candidate in means}
    return Full(f"made up around {Path(file).name}", ran, means=means, seed_sd=seed_sd)


def drawn(full: Full, rng: np.random.Generator, args: argparse.Namespace) -> dict[str, list[float]]:
    """Candidate → score with each seed, of one resampling."""
    if full.means:
        shared = rng.normal(0, args.shared_sd, full.seeds)
        return {
            name: (mean + shared + rng.normal(0, full.seed_sd, full.seeds)).tolist()
            for name, mean in full.means.items()
        }
    order = rng.permutation(full.seeds)
    ids = sorted({id_ for runs in full.each.values() for run in runs for id_ in run})
    times = dict(
        zip(ids, np.bincount(rng.integers(len(ids), size=len(ids)), minlength=len(ids)), strict=True)
    )
    scores = {}
    for name, runs in full.each.items():
        weights = [np.array([times[id_] for id_ in runs[i]], dtype=float) for i in order]
        values = [np.array(list(runs[i].values())) for i in order]
        scores[name] = [
            float(v @ w / w.sum()) if w.sum() else float(v.mean())
            for v, w in zip(values, weights, strict=True)
        ]
    return scores


def replayed(full: Full, args: argparse.Namespace) -> dict:
    """How often `stop` and the full study agree, and the share of the compute that `stop` took."""
    rng, rule = (
        np.random.default_rng(args.seed),
        Rule(full.seeds, args.smallest_difference, args.error, args.declared_sd),
    )
    whole = sum(map(sum, full.seconds.values()))
    agreed, same, shares = 0, 0, []
    for _ in range(args.draws):
        scores = drawn(full, rng, args)
        found = standing(scores, rule)
        means = {name: float(np.mean(row)) for name, row in scores.items()}
        best = max(means, key=means.__getitem__)
        agreed += means[best] - means[found.leader] < args.smallest_difference
        same += best == found.leader
        ran = {each.candidate: each.seeds for each in found.decided}
        # Those that stayed ran until the last of the others was decided.
        last = full.seeds if len(ran) < len(scores) - 1 else max(ran.values())
        shares.append(sum(np.mean(s) * ran.get(name, last) for name, s in full.seconds.items()) / whole)
    low, high = wilson(agreed, args.draws)
    return {
        "study": full.name,
        "candidates": len(full.seconds),
        "seeds": full.seeds,
        "runs": len(full.seconds) * full.seeds,
        "seed_sd": full.seed_sd,
        "declared_sd": args.declared_sd,
        "smallest_difference": args.smallest_difference,
        "error": args.error,
        "draws": args.draws,
        "agreed": round(100 * agreed / args.draws, 2),
        "agreed_low": round(100 * low, 2),
        "agreed_high": round(100 * high, 2),
        "same_name": round(100 * same / args.draws, 2),
        "compute": round(100 * float(np.mean(shares)), 2),
        "compute_p95": round(100 * float(np.quantile(shares, 0.95)), 2),
    }


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927)."""
    z = norm.ppf(0.975)
    share, square = hits / tries, z**2 / tries
    middle = share + square / 2
    half = z * np.sqrt(share * (1 - share) / tries + square / (4 * tries))
    return max(0.0, float((middle - half) / (1 + square))), min(1.0, float((middle + half) / (1 + square)))


def table(rows: list[dict]) -> str:
    frame = pd.DataFrame(
        {
            "study": [row["study"] for row in rows],
            "candidates × seeds": [f"{row['candidates']} × {row['seeds']}" for row in rows],
            "sd of a seed": ["" if row["seed_sd"] is None else f"{row['seed_sd']:g}" for row in rows],
            "agrees [95%]": [
                f"{row['agreed']:.1f}% [{row['agreed_low']:.1f}, {row['agreed_high']:.1f}]" for row in rows
            ],
            "same name": [f"{row['same_name']:.1f}%" for row in rows],
            "compute": [f"{row['compute']:.0f}%" for row in rows],
        }
    )
    return to_markdown(frame)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--studies", nargs="*", type=Path, default=[], metavar="DIR", help="folders of finished studies"
    )
    p.add_argument(
        "--recorded", nargs="*", default=[], metavar="FILE:FIELD", help="results with a mean a technique"
    )
    p.add_argument(
        "--seeds", nargs="*", type=int, default=[3, 5, 10], help="of made-up studies, one study for each"
    )
    p.add_argument(
        "--seed_sd", nargs="*", type=float, default=[1.5, 4.0], help="points; of made-up studies, likewise"
    )
    p.add_argument("--shared_sd", type=float, default=1.0, help="points; of made-up studies")
    p.add_argument("--metric", default="f1", help="of the questions; the one that decides")
    p.add_argument("--smallest_difference", type=float, default=1.0, help="points, as in a study")
    p.add_argument("--error", type=float, default=0.05, help="as in a study")
    p.add_argument("--declared_sd", type=float, default=SEED_SD, help="points; seed_sd of a study's `stop`")
    p.add_argument("--draws", type=int, default=1000)
    p.add_argument("--seed", type=int, default=0)
    json_flag(p)
    args = p.parse_args()
    full = [each for folder in args.studies for each in of_folder(folder, args.metric)]
    full += [
        of_means(recorded, seeds, sd)
        for recorded in args.recorded
        for sd in args.seed_sd
        for seeds in args.seeds
    ]
    if not full:
        raise UserError("Nothing to replay: name --studies with two seeds or more, or --recorded results.")
    rows = [replayed(each, args) for each in full]
    made_up = f"studies made up around recorded means, shared sd {args.shared_sd:g}" if args.recorded else ""
    recorded = ", ".join(f"the study in {folder}" for folder in args.studies)
    save_rows(args.json, rows, data="; ".join(filter(None, (recorded, made_up))), seeds=[args.seed])
    print(table(rows))


if __name__ == "__main__":
    sys.exit(guarded(main))
