"""Changes to the files of a stored model, and the doors at which they must be noticed."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pytest

from common.errors import UserError
from common.page import app, catalogue
from common.serving import stored_code


def changed(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return "was changed"


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])
    return "was changed"


def removed(file):
    file.unlink()
    return "is missing"


def added(file):
    shutil.copy(file, file.with_name(f"{file.name}.more"))
    return "was added"


def loaded(uri):
    stored_code.load(uri)


def asked_on_the_page(uri):
    """As the page's script asks; what stands in the model's card is raised."""
    client = app.create_app(catalogue.Catalogue([uri])).test_client()
    entry = catalogue.entries([uri])[0].uri
    answer = client.post("/answer", json={"question": "Who?", "context": "It is a text.", "models": [entry]})
    assert answer.status_code == 200, answer.text
    (told,) = answer.get_json()["results"]
    if "error" in told:
        raise UserError(told["error"])


def folder_of(uri: str) -> Path:
    """Of a version's or a logged model's files in the store."""
    client = mlflow.MlflowClient()
    name = uri.removeprefix("models:/")
    if "@" in name:
        source = client.get_model_version_by_alias(*name.split("@")).source
        name = source.removeprefix("models:/")
    return Path(urlparse(client.get_logged_model(name).artifact_location).path)


def files_of(folder: Path) -> list[Path]:
    """Without what MLflow and Python put there, of which the copy that is loaded has nothing."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in found if file.name != "registered_model_meta" and file.suffix != ".pyc"]


def refused(door: Callable, folders: Sequence[Path], changes: Sequence[Callable]) -> list[str]:
    """Make each change to each file and undo it again; the door must refuse each by the file's name, in one line.

    Returns the names of the files.
    """
    names = []
    for folder in folders:
        for file in files_of(folder):
            name, content = file.relative_to(folder).as_posix(), file.read_bytes()
            names.append(name)
            for change in changes if content else ():
                told = change(file)
                try:
                    with pytest.raises(UserError) as caught:
                        door()
                    message = str(caught.value)
                    assert f"its file {name}{'.more' if change is added else ''} {told}" in message, message
                    assert "\n" not in message
                finally:
                    file.write_bytes(content)
                    file.with_name(f"{file.name}.more").unlink(missing_ok=True)
    return names
