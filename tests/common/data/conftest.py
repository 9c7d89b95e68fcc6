"""Questions as files, as prepared data and as the hub's, with the hub reachable or not."""

import socket

import pytest

from common.data import questions
from tests.scripts.conftest import squad_json
from tests.support.questions import write_hub_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")

    def article(name, questions):
        rows = []
        for i in range(questions):
            context = f"{name} has part {i // 2}, which is blue."
            answers = {"text": ["blue"], "answer_start": [context.index("blue")]}
            rows.append(
                {
                    "id": f"{name}-{i}",
                    "title": name,
                    "context": context,
                    "question": "Which colour?",
                    "answers": answers,
                }
            )
        return rows

    train = [e for n in range(20) for e in article(f"train{n}", 5 + n % 3)]
    test = [e for n in range(3) for e in article(f"test{n}", 4)]
    for name, examples in (("train", train), ("test", test)):
        (folder / f"{name}.json").write_text(squad_json(examples, "1.1"))
    return folder / "train.json", folder / "test.json"


@pytest.fixture
def prepared(files, tmp_path):
    folder = tmp_path / "squad_data"
    return folder, questions.prepare_files(*files, folder)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refused(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    """(folder of the snapshot that the hub hands out, list of what it was asked)."""
    folder = tmp_path / "snapshot"
    write_hub_files(folder, files)
    asked = []

    def snapshot_download(repository, **kwargs):
        asked.append((repository, kwargs))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return folder, asked
