import pytest

from common.errors import UserError
from common.files import text_or_file


@pytest.mark.parametrize(
    "text", ["Paris", "It is 3.5 km.", "and/or both", "Line\nnotes.txt", "", "x" * 5000, "He left at 5 p.m."]
)
def test_a_text_is_itself(text):
    assert text_or_file(text, "--context") == text


@pytest.mark.parametrize(
    "path", ["notes-missing.txt", "/no/such/notes", "./notes", "~/no-notes", "my notes.TXT", "a/b/c"]
)
def test_what_looks_like_a_path_is_one(path):
    with pytest.raises(UserError, match="--context .*no such file"):
        text_or_file(path, "--context")


def test_a_file_gives_its_text_and_says_what_is_wrong_with_it(tmp_path):
    file = tmp_path / "notes"
    file.write_text("The heart beats.")
    assert text_or_file(str(file), "--context") == "The heart beats."
    file.write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        text_or_file(str(file), "--context")
    file.write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        text_or_file(str(file), "--context")
    with pytest.raises(UserError, match="is a folder"):
        text_or_file(str(tmp_path), "--context")
