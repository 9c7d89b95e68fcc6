"""Blocks and their journal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.inference.blocks import Journal, blocks, digest


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 7), st.integers(1, 120))
def test_blocks_keep_every_example_in_order_within_bounds(lengths, rows, characters):
    examples = [{"id": i, "text": "x" * n} for i, n in enumerate(lengths)]
    made = list(blocks(examples, ["text"], rows, characters))
    assert [example for block in made for example in block] == examples
    for block in made:
        assert 1 <= len(block) <= rows
        assert len(block) == 1 or sum(len(e["text"]) for e in block) <= characters
    # A longer stream begins with the same blocks, but for the last one.
    more = list(blocks([*examples, {"id": "new", "text": "y"}], ["text"], rows, characters))
    assert made[:-1] == more[: max(0, len(made) - 1)]


def test_a_digest_is_of_what_is_asked():
    block = [{"id": "a", "text": "one", "label": 1}]
    assert digest(block, ["text"]) == digest([block[0] | {"label": 0}], ["text"])
    assert digest(block, ["text"]) != digest([block[0] | {"text": "two"}], ["text"])
    assert digest(block, ["text"]) != digest([block[0] | {"id": "b"}], ["text"])


def test_a_damaged_block_is_named(tmp_path):
    folder = tmp_path / "journal"
    with Journal(folder, {"model": "m"}, False) as journal:
        journal.put(0, "x", [{"id": "a"}])
    (file,) = folder.glob("00000000-*.json")
    file.write_text(json.dumps({"asked": "x"}))
    with Journal(folder, {"model": "m"}, True) as journal:
        assert journal.examples == 1
        with pytest.raises(UserError, match="is damaged: remove it"):
            journal.has(0, "x")


def test_a_new_start_takes_nothing_over(tmp_path):
    folder = tmp_path / "journal"
    with Journal(folder, {"model": "m"}, False) as journal:
        journal.put(0, "x", [{"id": "a"}])
    with Journal(folder, {"model": "n"}, False) as journal:
        assert not journal.examples and not journal.has(0, "x")
        journal.put(1, "y", [{"id": "c"}])
        journal.put(0, "x", [{"id": "b"}])
        assert [row["id"] for row in journal.answers()] == ["b", "c"]
        journal.remove()
    assert not list(tmp_path.iterdir())
