from datasets import Dataset

from common.data import rows
from common.data.rows import Rows


def test_rows_are_those_of_the_data_set(monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 3)
    examples = [
        {"id": str(i), "answers": {"text": [f"t{i}"] * (i % 2), "answer_start": [i] * (i % 2)}}
        for i in range(10)
    ]
    found = Rows(Dataset.from_list(examples))
    assert len(found) == 10 and list(found) == examples
    assert found[4] == examples[4] and found[-1] == examples[-1]
    assert found[3:8] == examples[3:8] and found[8:99] == examples[8:] and found[::4] == examples[::4]
