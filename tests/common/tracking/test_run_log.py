"""Everything that a training can log to has the same methods."""

import inspect
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from common.tracking import run_log
from common.tracking.runs import Run
from common.tracking.wandb_mirror import Mirrored
from common.training.recording import Recorder


def methods(protocol):
    return [name for name in vars(protocol) if name.startswith(("log_", "set_"))]


@pytest.mark.parametrize(
    ("kind", "protocols"),
    [
        (Run, [run_log.RunLog]),
        *((kind, [run_log.RunLog, run_log.TrainingLog]) for kind in (Recorder, Mirrored, run_log.Silent)),
    ],
)
def test_every_log_takes_what_the_protocol_says(kind, protocols):
    names = [(protocol, name) for protocol in protocols for name in methods(protocol)]
    assert len(names) >= 8
    for protocol, name in names:
        wanted = inspect.signature(getattr(protocol, name)).parameters
        # Declared by the class itself, and callable as the protocol's method is.
        offered = inspect.signature(vars(kind)[name]).parameters
        assert list(offered)[: len(wanted)] == list(wanted), name
        for more in list(offered.values())[len(wanted) :]:
            assert more.default is not inspect.Parameter.empty, name
        for each, parameter in wanted.items():
            assert offered[each].default == parameter.default, (name, each)


class Kept:
    """A log that keeps the calls."""

    id = "abc"

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, args))


class Config(dict):
    def update(self, values, allow_val_change):
        super().update(values)


class Remote:
    """Stands for a run of Weights & Biases."""

    def __init__(self):
        self.config, self.summary, self.points = Config(), {}, []
        self.log = self.points.append


def test_the_mirror_passes_everything_on_and_copies_numbers():
    kept, remote = Kept(), Remote()
    log = Mirrored(kept, remote)
    log.log_params({"r": 4})
    log.log_metrics({"loss": 2.0, "norm": float("inf")}, 3)
    log.log_metrics({"norm": float("nan")}, 4)
    log.log_metrics({"seconds": 5.0})
    log.set_tags({"a": "b"})
    log.log_data({"name": "d"}, "testing")
    log.log_dict({}, "d.json")
    log.log_text("t", "t.txt")
    log.log_artifact(Path("folder"))
    log.log_model(Path("bundle"), None, {"question": "q"}, {"test_f1": 50.0})
    assert [name for name, _ in kept.calls] == [
        "log_params", "log_metrics", "log_metrics", "log_metrics", "set_tags", "log_data", "log_dict",
        "log_text", "log_artifact", "log_model",
    ]  # fmt: skip
    assert kept.calls[5][1] == ({"name": "d"}, "testing") and log.id == "abc"
    assert remote.config == {"r": 4} and remote.points == [{"loss": 2.0, "step": 3}]
    assert remote.summary == {"seconds": 5.0, "test_f1": 50.0}


def test_the_silent_log_does_nothing(tmp_path):
    log = run_log.Silent()
    figure = plt.figure()
    log.log_figure(figure, "f.png")
    log.log_dict({}, "d.json")
    log.log_artifact(tmp_path)
    assert log.id == "" and list(tmp_path.iterdir()) == []
    plt.close(figure)
