"""Readers of what users give, fed with what Hypothesis makes: each one reads it or raises UserError in one line, nothing else.

FUZZ_EXAMPLES sets how many inputs each reader gets, new ones each time (default 150, always the same).
"""

import copy
import json
import os
import shutil

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data import labelled_texts, prepared
from common.data.squad_json import read_squad_json
from common.errors import UserError
from common.studies import declaration
from common.training.command_line import parse
from common.training.refusals import check
from common.training.settings import settled
from tests.scripts.conftest import squad_json
from tests.support.questions import EXAMPLES
from tests.support.techniques import TECHNIQUES

pytestmark = pytest.mark.slow

fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 150)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["", "nan", "1e400", "-1", "2.0", "v1.1", "\x00", "\ud800", "é\u0301", "0x10"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | SCALARS, inner, max_size=4)
    ),
    max_leaves=12,
)
STUDY = {
    "name": "s",
    "base": {"model_checkpoint": "embedded", "num_train_epochs": 2},
    "techniques": {"lora": {"grid": {"r": [4, 16], "learning_rate": [3e-4, 1e-3]}}, "ia3": None},
    "stages": {
        "sweep": {"base": {"max_train_samples": "10%"}, "seeds": [42]},
        "full": {"best_of": "sweep", "seeds": [1, 2]},
    },
    "smoke": {"base": {"max_test_samples": 20}},
}


def changed(draw, content):
    """The content with some of its parts, at any depth, replaced, removed or added to."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        here = content
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and draw(st.integers(0, 3)):
                here = here[key]
                continue
            if draw(st.booleans()):
                here[key] = draw(JSON)
            elif isinstance(here, dict):
                del here[key]
            else:
                here.insert(key, draw(JSON))
            break
    return content


def one_line(call):
    """Call it; UserError must be a message in one line, or a line for each of several faults."""
    try:
        return call()
    except UserError as error:
        first, *faults = str(error).split("\n")
        assert first.strip() and len(str(error)) < 5000
        assert not faults or "faults" in first and all(line.startswith("  ") for line in faults)
        return None


def write(file, content):
    # Surrogates that stand alone are escaped, as a file may well hold them.
    file.write_bytes(json.dumps(content, allow_nan=True, skipkeys=True).encode())
    return file


@fuzzed
@given(st.data())
def test_squad_json(tmp_path, data):
    file = write(
        tmp_path / "f.json",
        changed(data.draw, json.loads(squad_json(EXAMPLES))),
    )
    one_line(lambda: read_squad_json(file))


@fuzzed
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 40))
def test_squad_json_of_damaged_bytes(tmp_path, noise, at, cut):
    content = squad_json(EXAMPLES[:3]).encode()
    (tmp_path / "f.json").write_bytes(content[:at] + noise + content[at + cut :])
    one_line(lambda: read_squad_json(tmp_path / "f.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.support.trained import prepare_data

    made = tmp_path_factory.mktemp("fuzz")
    prepare_data(made)
    return made / "data"


@fuzzed
@given(st.data())
def test_prepared_data(tmp_path_factory, folder, data):
    """A file of it is changed, cut or removed; its record is changed."""
    copied = tmp_path_factory.mktemp("copied") / "data"
    shutil.copytree(folder, copied)
    files = sorted(f for f in copied.rglob("*") if f.is_file())
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "noise", "gone", "json", "folder"]))
    if kind == "cut":
        file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    elif kind == "noise":
        at = data.draw(st.integers(0, len(content)))
        file.write_bytes(content[:at] + data.draw(st.binary(max_size=20)) + content[at:])
    elif kind == "json":
        target = copied / prepared.RECORD
        write(target, changed(data.draw, json.loads(target.read_text())))
    else:
        file.unlink()
        if kind == "folder":
            file.mkdir()
    found = one_line(lambda: prepared.load(copied))
    if found and file != copied / prepared.RECORD:
        assert kind == "json" or file.read_bytes() == content
    shutil.rmtree(copied)


@fuzzed
@given(st.data())
def test_csv_of_texts(tmp_path, data):
    content = b'text,label\nfine,pos\nbad,0\n"two\nlines",neg\n'
    at, cut = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 10))
    noise = data.draw(
        st.binary(max_size=40) | st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace"))
    )
    (tmp_path / "f.csv").write_bytes(content[:at] + noise + content[at + cut :])
    one_line(lambda: labelled_texts.prepare_files(tmp_path / "f.csv", None, tmp_path / "o"))


@fuzzed
@given(st.data())
def test_parquet_of_texts(tmp_path, data):
    import pandas as pd

    rows = data.draw(st.lists(st.fixed_dictionaries({"text": SCALARS, "label": SCALARS}), max_size=4))
    try:
        pd.DataFrame(rows, columns=["text", "label"]).to_parquet(tmp_path / "f.parquet")
    except Exception:
        return
    content = (tmp_path / "f.parquet").read_bytes()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content)))
        (tmp_path / "f.parquet").write_bytes(content[:at] + data.draw(st.binary(max_size=20)))
    one_line(lambda: labelled_texts.prepare_files(tmp_path / "f.parquet", None, tmp_path / "o"))


@fuzzed
@given(st.data())
def test_config_yaml(tmp_path, data):
    known = {
        "r": 4,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "resume": True,
        "report_to": ["mlflow"],
        "seed": 1,
    }
    content = changed(data.draw, known)
    text = data.draw(
        st.just(None) | st.text(max_size=60) | st.just("r: !!python/object/apply:os.system [exit]")
    )
    try:
        text = text or yaml.dump(content, allow_unicode=True)
        (tmp_path / "c.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    found = one_line(lambda: parse(TECHNIQUES["lora"], ["--config", str(tmp_path / "c.yaml")]))
    if found:
        one_line(lambda: check(found[0], settled(found[1])))


@fuzzed
@given(st.data())
def test_study_yaml(data):
    content = changed(data.draw, STUDY)
    study = one_line(lambda: declaration.parse(content, "s.yaml", TECHNIQUES))
    if study:
        for smoke in (False, True):
            one_line(lambda smoke=smoke: declaration.parse(content, "s.yaml", TECHNIQUES, smoke))
