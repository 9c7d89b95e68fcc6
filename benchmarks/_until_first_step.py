"""Runs a technique's script until its first optimizer step is done, then leaves: `_until_first_step.py REPORT SCRIPT FLAGS`.

REPORT gets JSON: `seconds` since the process began, `cpu` seconds (user and system), and seconds of the parts that the script's
checkout has under the names below: `imports`, and `opening` the store and making the run. Only the standard library is
imported here, so that nothing is imported for the script.
"""

import functools
import importlib.machinery
import json
import os
import resource
import runpy
import sys
import time

STORE = {"common.tracking.store": "configure", "common.tracking.runs": "create"}
"""Module → its function that opens the store or makes the run there."""
ALL = "common.training.fit"
"""The module whose import brings all others."""
OPTIMIZERS = "torch.optim.optimizer"

parts: dict[str, float] = {}


def main(report: str, script: str) -> None:
    def done(*_: object) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {"seconds": now(), "cpu": used.ru_utime + used.ru_stime, **parts}
        with open(report, "w", encoding="utf-8") as file:
            json.dump(found, file)
        # Neither a checkpoint nor a model is wanted.
        os._exit(0)

    sys.meta_path.insert(0, Finder(done))
    # As Python does for a script.
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    sys.argv[:] = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


class Finder:
    """Changes a few modules once they are imported. done: called after each optimizer step."""

    def __init__(self, done):
        self.done = done

    def find_spec(self, name, path=None, target=None):
        if name not in (*STORE, ALL, OPTIMIZERS):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader.exec_module = functools.partial(self.changed, name, spec.loader.exec_module)
        return spec

    def changed(self, name, execute, module):
        began = now()
        execute(module)
        if name == OPTIMIZERS:
            module.register_optimizer_step_post_hook(self.done)
        elif name == ALL:
            parts["imports"] = now() - began
        elif hasattr(module, STORE[name]):
            setattr(module, STORE[name], timed(getattr(module, STORE[name])))


def timed(call):
    def wrapped(*args, **kwargs):
        began = now()
        try:
            return call(*args, **kwargs)
        finally:
            parts["opening"] = parts.get("opening", 0.0) + now() - began

    return wrapped


def now() -> float:
    """Seconds since the process began."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        # The command's name stands in brackets, and may hold spaces.
        began = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
