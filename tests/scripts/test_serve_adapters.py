"""One base with its adapters over HTTP, by two workers, with a limit of whoever serves it."""

import json
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pandas as pd
import psutil
import pytest

from common.data import prepared
from common.registry import adapter_set
from tests.support import stores, trained
from tests.support.server import post, served


@pytest.mark.long
def test_every_technique_answers_over_http_and_each_request_its_own(tiny, tmp_path):
    with stores.in_force(tmp_path):
        record = trained.prepare_data(tmp_path)
        examples = prepared.load(tmp_path / "data")[0]["test"].to_list()
        for seed, technique in enumerate(("lora", "prompt-encoder")):
            trained.log_run(
                tmp_path, tiny, record, examples, experiment="all", technique=technique, seed=seed
            )
        done = adapter_set.register_adapters("all")
        uri = f"models:/{adapter_set.NAME}/{done.version}"
        rows = [{name: e[name] for name in ("question", "context")} for e in examples]
        model = mlflow.pyfunc.load_model(uri)
        wanted = {
            technique: [answer["answer"] for answer in told]
            for technique in done.runs
            if (told := model.predict(pd.DataFrame(rows), params={"technique": technique}).to_dict("records"))
        }
        limit = {"SERVING_MODEL_CONFIG": json.dumps({"max_context": 300})}
        with served(tmp_path, uri, "--workers", "2", **limit) as (address, log, server):

            def ask(row: int, technique: str):
                status, text = post(
                    address, {"dataframe_records": [rows[row]], "params": {"technique": technique}}
                )
                assert status == 200, text
                return json.loads(text)["predictions"][0]

            asked = [(row, technique) for technique in wanted for row in range(len(rows))] * 3
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda which: ask(*which), asked))
            for (row, technique), answer in zip(asked, answers, strict=True):
                assert (answer["technique"], answer["answer"]) == (technique, wanted[technique][row])
            beside = ask(0, "all")["answers"]
            assert {a["technique"]: a["answer"] for a in beside} == {
                t: found[0] for t, found in wanted.items()
            }

            both = [
                {**rows[0], "technique": technique} for technique in (*reversed(list(wanted)), *wanted, None)
            ]
            named = [row["technique"] or next(iter(wanted)) for row in both]
            columns = list(both[0])
            for body in (
                {"dataframe_records": both},
                {"instances": both},
                {"inputs": {name: [row[name] for row in both] for name in columns}},
                {"dataframe_split": {"columns": columns, "data": [list(row.values()) for row in both]}},
            ):
                status, text = post(address, body)
                assert status == 200, text
                answers = json.loads(text)["predictions"]
                assert [answer["technique"] for answer in answers] == named
                assert [answer["answer"] for answer in answers] == [wanted[name][0] for name in named]
            status, text = post(address, {"instances": [both[0], rows[1]]})
            assert status == 400 and "row 1 and row 0 differ in 'technique'" in text, text

            status, text = post(address, {"dataframe_records": rows[:1], "params": {"technique": "magic"}})
            assert status == 400 and "LoRA" in text
            words = "two plates drift apart " * 20
            for length, expected in ((300, 200), (301, 400)):
                body = {"dataframe_records": [{"question": "What drifts?", "context": words[:length]}]}
                status, text = post(address, body)
                assert status == expected and (status == 200 or "300" in text), text
            commands = [p.cmdline() for p in psutil.Process(server.pid).children(recursive=True)]
            assert sum("spawn_main" in " ".join(command) for command in commands) == 2, commands
        assert "Traceback" not in log.read_text()
