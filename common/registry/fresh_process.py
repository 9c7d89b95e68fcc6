"""A stored model, loaded and asked in a process of its own: `checking` runs this file by its path.

It imports nothing from this package, so that the stored model can only use the code that is stored with it.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 20
"""Least number of timed requests; with fewer the median would be left to chance."""


def ask(folder: str, asked: Sequence[Mapping[str, str]]) -> dict:
    """Load a model from its folder and ask it for each record, one request at a time, as MLflow's server does.

    `loading`: seconds; `answers`: the answer to each record; `latencies`: ms of each request. Every record is asked at
    least once, and there are at least LEAST requests.
    """
    import mlflow
    import pandas as pd

    started = time.perf_counter()
    model = mlflow.pyfunc.load_model(folder)
    loading = time.perf_counter() - started
    if schema := model.metadata.get_input_schema():
        wanted = schema.required_input_names()
        # MLflow leaves out columns that a model does not know: it would answer a part of what it is asked.
        if other := next((record for record in asked if set(record) != set(wanted)), None):
            raise ValueError(f"it takes {' and '.join(wanted)}, not {' and '.join(other)}")
    frames = [pd.DataFrame([record]) for record in asked]
    # The first answer takes several times as long as later ones.
    model.predict(frames[0])
    answers: list[dict[str, Any]] = []
    latencies: list[float] = []
    while len(latencies) < max(LEAST, len(frames)):
        frame = frames[len(latencies) % len(frames)]
        started = time.perf_counter()
        given = model.predict(frame)
        latencies.append(1000 * (time.perf_counter() - started))
        if len(answers) < len(frames):
            answers.append(given.iloc[0].to_dict())
    return {"loading": loading, "answers": answers, "latencies": latencies}


def main(folder: str, asked: str, answered: str) -> None:
    """asked: JSON file of the records; answered: file for the result, because a model may print anything."""
    with open(asked, encoding="utf-8") as file:
        result = ask(folder, json.load(file))
    with open(answered, "w", encoding="utf-8") as file:
        json.dump(result, file, default=lambda value: value.item())


if __name__ == "__main__":
    main(*sys.argv[1:])
