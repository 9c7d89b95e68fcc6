"""Predictions by two workers of a Ray cluster, one of which is killed: the same bytes as in one process."""

import os
import signal
from contextlib import nullcontext

import pytest

from common.errors import UserError
from common.inference import blocks, models, predicting
from common.inference.outputs import Outputs
from common.inference.source import Source
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")

pytestmark = pytest.mark.long

NAMES = ("p.json", "n.json", "o.json", "p.csv")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(URI of a stored model, a source of 64 questions) with a store in force."""
    folder = tmp_path_factory.mktemp("predict-ray")
    with stores.in_force(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        record = trained.prepare_data(folder)
        id_ = trained.log_run(folder, tiny, record, EXAMPLES, experiment="ray")
        rows = [example | {"id": f"{i}-{example['id']}"} for i in range(8) for example in EXAMPLES]
        yield f"runs:/{id_}/model", Source("rows", lambda: iter(rows))


def outputs(folder):
    return Outputs(*(folder / name for name in NAMES))


def test_a_killed_workers_blocks_are_done_again(world, tmp_path, monkeypatch):
    import ray

    from common.inference import ray_backend

    uri, source = world
    monkeypatch.setattr(blocks.blocks, "__defaults__", (4, blocks.CHARACTERS))
    model = models.load(uri)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    predicting.predict(model, source, outputs(tmp_path / "here"))
    with ray_backend.connected(None, uri):
        asked = predicting.request(model, outputs(tmp_path / "there"), {})
        pool = ray_backend.Pool(uri, model.origin.content, asked, workers=2)
        victims = []

        def killing(waiting):
            for count, answered in enumerate(pool(waiting)):
                if count == 1:
                    dead = pool.workers[0]
                    victims.append((dead, ray.get(dead.process.remote())))
                    os.kill(victims[0][1], signal.SIGKILL)
                yield answered

        done = predicting.predict(
            model, source, outputs(tmp_path / "there"), backends=lambda *_: nullcontext(killing)
        )
        assert done.examples == 64
        assert victims[0][0] not in pool.workers
        pids = ray.get([worker.process.remote() for worker in pool.workers])
        assert pids and victims[0][1] not in pids
        bad = [(0, [{"id": "a", "question": " ", "context": "x"}])]
        with pytest.raises(UserError, match="'a': question is empty"):
            list(pool(iter(bad)))
    with ray_backend.connected(None, uri):
        with pytest.raises(UserError, match="is another model on the cluster"):
            list(ray_backend.Pool(uri, "something else", {}, workers=1)(iter(bad)))
        missing = ray_backend.Pool("./nowhere", "something", {}, workers=1)
        monkeypatch.setattr(missing, "_died", lambda _: pytest.fail("a refusal counts as a death"))
        with pytest.raises(UserError, match="by a worker of the cluster: ./nowhere .* no such folder"):
            list(missing(iter(bad)))
    for name in NAMES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_the_command_line_gives_the_same_bytes(world, tmp_path):
    import json

    from tests.scripts.conftest import run_script

    uri, source = world
    lines = "\n".join(json.dumps({n: e[n] for n in ("id", "question", "context")}) for e in source.examples())
    for flags in ((), ("--backend", "ray", "--workers", "1")):
        file = tmp_path / f"{len(flags)}.json"
        run_script("predict.py", "--model", uri, "--file", "-", "--output", file, *flags, input=lines)
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "4.json").read_bytes()
