"""What a program sees that runs without this project: by a program that tells it."""

import json
import time

import pytest

from common import isolated
from common.paths import ROOT

PROGRAM = """
import importlib.util, json, os, sys
*given, asked, answer = sys.argv[1:]
request = json.load(open(asked))
print("libraries print")
if request == "fail":
    sys.exit("Traceback\\nValueError: not like this")
if request == "silent":
    sys.exit()
names = ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "MINE", "OMP_NUM_THREADS", "TMPDIR")
seen = {name: os.environ.get(name) for name in names}
seen |= {"project": importlib.util.find_spec("common") is not None, "given": given, "request": request}
open(answer, "w").write(json.dumps(seen | {"here": os.getcwd()}))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The program, in a folder beside another one of this package's name."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    (tmp_path / "program.py").write_text(PROGRAM)
    # As a shell has it in which somebody works on the project.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.chdir(ROOT)
    return str(tmp_path / "program.py")


@pytest.mark.parametrize("cached", [False, True])
def test_it_has_neither_this_package_nor_the_hub_and_its_cache_on_demand(cached, program, tmp_path):
    given = isolated.answer(program, ["é"], "a", "b", timeout=60, environment={"MINE": "1"}, hub_cache=cached)
    seen = json.loads(given)
    assert not seen["project"] and seen["HF_HUB_OFFLINE"] == "1"
    assert (seen["HF_HUB_CACHE"] == str(tmp_path / "cache")) == cached
    assert (seen["given"], seen["request"], seen["MINE"], seen["OMP_NUM_THREADS"]) == (
        ["a", "b"],
        ["é"],
        "1",
        "1",
    )
    assert seen["TMPDIR"] == seen["here"] != str(ROOT)


@pytest.mark.parametrize(
    ("request_", "message"), [("fail", "^ValueError: not like this$"), ("silent", "^exit status 0$")]
)
def test_what_fails_says_why(request_, message, program):
    with pytest.raises(isolated.NoAnswer, match=message):
        isolated.answer(program, request_, timeout=60)


def test_it_does_not_wait_for_ever(tmp_path):
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(600)\n")
    begun = time.monotonic()
    with pytest.raises(isolated.NoAnswer, match="no answer within 0.2 s"):
        isolated.answer(str(tmp_path / "waits.py"), None, timeout=0.2)
    assert time.monotonic() - begun < 300
