"""Studies as runs leave them, made up: the scores come from a model of easy and hard examples, not from training."""

import math

import numpy as np
import pandas as pd

PARAMETERS = {
    "Standard": 22_600_000,
    "LoRA": 665_000,
    "LoHa": 665_000,
    "IA3": 14_000,
    "Prefix tuning": 93_000,
    "Prompt encoder": 450_000,
}
QUALITY = {
    "Standard": 0.62,
    "LoRA": 0.60,
    "LoHa": 0.58,
    "IA3": 0.47,
    "Prefix tuning": 0.42,
    "Prompt encoder": 0.13,
}


def make_study(name, metric="f1", task="extractive-qa", axes=(), **more):
    return {
        "name": name,
        "description": f"What {name} is about.",
        "task": task,
        "metric": metric,
        "axes": list(axes),
        "edges": [],
        "provenance": {
            "git_commit": "0" * 40,
            "versions": {"torch": "2.13.0"},
            "data_fingerprint": "ab" * 32,
        },
        "record": {"command": f"python scripts/study.py studies/{name}.yaml"},
    } | more


def make_runs(rows, metric="f1", examples=400, seed=0, steps=120, epochs=3):
    """(runs, histories, scores) of rows: technique, quality (0 to 1), seed, and any other column."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 0.8, examples)
    runs, histories, scores = [], {}, {}
    for i, row in enumerate(rows):
        run_id, technique, quality = f"run{i:04}", row["technique"], row.get("quality", 0.5)
        parameters = row.get("trainable_parameters", PARAMETERS.get(technique, 1e6))
        base = {
            "stage": "runs",
            "name": f"{technique}-seed={row.get('seed', 42)}",
            "checkpoint": "embedded",
            "seed": 42,
            "status": "finished",
            "failure": None,
            "run_id": run_id,
        }
        row = base | {k: v for k, v in row.items() if k != "quality"}
        if row["status"] != "finished":
            runs.append(row | {"run_id": None})
            continue
        seeded = quality + rng.normal(0, 0.008)
        chance = 1 / (
            1 + np.exp(-(math.log(seeded / (1 - seeded)) * 1.15 + hardness + rng.normal(0, 0.5, examples)))
        )
        exact = (rng.random(examples) < chance).astype(float)
        f1 = (
            exact
            if metric == "accuracy"
            else np.clip(np.where(exact == 1, 1.0, rng.beta(0.3, 1.2, examples)), 0, 1)
        )
        scores[run_id] = {metric: f1} if metric == "accuracy" else {metric: f1, "exact_match": exact}
        measured = {
            f"best_validation_{metric}": 100 * seeded + rng.normal(0, 0.8),
            f"test_{metric}": 100 * f1.mean(),
            f"test_{metric}_low": 100 * f1.mean() - 3,
            f"test_{metric}_high": 100 * f1.mean() + 3,
            "test_examples": examples,
            "trainable_parameters": parameters,
            "total_parameters": 22_600_000 + parameters * (parameters < 2e7),
            "training_seconds": 700 + 400 * (parameters > 1e5) + 300 * (parameters > 2e7) + rng.normal(0, 20),
            "train_samples_per_second": 6.1,
            "evaluation_samples_per_second": 40.0 - 8 * (parameters < 2e7),
            "peak_memory_mib": 2400 + 1800 * (parameters > 2e7) + parameters / 4000,
            "adapter_mib": parameters * 4 / 2**20,
        }
        if metric == "f1":
            measured["test_exact_match"] = 100 * exact.mean()
        runs.append(measured | row)
        histories[run_id] = make_history(rng, quality, metric, row.get("steps", steps), epochs)
    return pd.DataFrame(runs), histories, scores


def make_history(rng, quality, metric, steps, epochs):
    entries = []
    for step in [1, *range(5, steps + 1, 5)]:
        done = step / steps
        loss = (1.2 - quality) * 2 + 3 * math.exp(-6 * done) + rng.normal(0, 0.12)
        rate = 1e-3 * (1 - done)
        entries.append(
            {"step": step, "epoch": epochs * done, "loss": loss, "learning_rate": rate, "grad_norm": 1.0}
        )
    for epoch in range(1, epochs + 1):
        score = 100 * quality * (1 - 0.5**epoch) + rng.normal(0, 0.7)
        entries.append({"step": steps * epoch // epochs, "epoch": float(epoch), f"eval_{metric}": score})
    return sorted(entries, key=lambda entry: entry["step"])


def make_gradients(seed=0, layers=6, steps=120):
    rng = np.random.default_rng(seed)
    names = [*(f"layer {i}" for i in range(layers)), "head"]
    return [
        {"step": step}
        | {name: float(math.exp(-step / 60 + i / 3 + rng.normal(0, 0.3))) for i, name in enumerate(names)}
        for step in [1, *range(10, steps + 1, 10)]
    ]


def techniques():
    """Six techniques × three seeds."""
    rows = [{"technique": t, "quality": q, "seed": s} for t, q in QUALITY.items() for s in (1, 2, 3)]
    return make_study("six-techniques"), *make_runs(rows)


def learning_rates():
    """A sweep of learning rates for LoRA and IA3, then three epochs at the best of each, two seeds."""
    rows = []
    for technique, best in (("LoRA", 2e-3), ("IA3", 1e-2)):
        for rate in (3e-4, 1e-3, 2e-3, 5e-3, 1e-2):
            quality = QUALITY[technique] - 0.1 * abs(math.log10(rate / best))
            rows.append(
                {
                    "technique": technique,
                    "quality": quality,
                    "learning_rate": rate,
                    "stage": "sweep",
                    "num_train_epochs": 1.0,
                    "steps": 60,
                }
            )
        for seed in (1, 2):
            rows.append(
                {
                    "technique": technique,
                    "quality": QUALITY[technique],
                    "learning_rate": best,
                    "stage": "final",
                    "seed": seed,
                    "num_train_epochs": 3.0,
                }
            )
    edges = [
        "IA3: the best learning_rate of sweep, 0.01, is the highest that was tried; higher values may be better."
    ]
    return make_study("learning-rates", axes=["learning_rate"], edges=edges), *make_runs(rows)


def sizes():
    """Full fine-tuning and LoRA by number of reviews."""
    rows = [
        {
            "technique": t,
            "quality": top - drop * (25_000 / n) ** 0.5,
            "max_train_samples": n,
            "seed": s,
            "steps": n // 50,
        }
        for t, top, drop in (("Standard", 0.93, 0.02), ("LoRA", 0.91, 0.012))
        for n in (2_000, 5_000, 10_000, 25_000)
        for s in (1, 2, 3)
    ]
    study = make_study("reviews", metric="accuracy", task="classification", axes=["max_train_samples"])
    return study, *make_runs(rows, metric="accuracy", examples=1000)


def generative():
    """Full fine-tuning and LoRA of a generative model, one seed."""
    rows = [
        {"technique": "Standard", "quality": 0.45, "peak_memory_mib": 6100.0},
        {"technique": "LoRA", "quality": 0.43, "peak_memory_mib": 3050.0},
    ]
    return make_study("generative", task="generative-qa"), *make_runs(rows)


def grid():
    """LoRA by rank, targets and learning rate, with gradient norms."""
    rows = [
        {
            "technique": "LoRA",
            "quality": 0.5
            + 0.03 * math.log2(r / 4)
            - 0.08 * abs(math.log10(rate / 2e-3))
            + 0.03 * (targets == "all linear"),
            "r": r,
            "targets": targets,
            "learning_rate": rate,
            "trainable_parameters": 5_000 * r * (4 if targets == "all linear" else 1),
        }
        for r in (4, 8, 16, 32)
        for targets in ("attention", "all linear")
        for rate in (5e-4, 2e-3, 8e-3)
    ]
    return make_study("ranks", axes=["r", "targets", "learning_rate"]), *make_runs(rows)


KINDS = {f.__name__: f for f in (techniques, learning_rates, sizes, generative, grid)}
