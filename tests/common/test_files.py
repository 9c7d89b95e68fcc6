import gzip
import io
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import read_text, text_or_file


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "It is 3.5 km.",
        "and/or both",
        "Line\nnotes.txt",
        "",
        "x" * 5000,
        "He left at 5 p.m.",
        "Paris.",
        "1.5",
        "U.S.A.",
    ],
)
def test_a_text_is_itself(text):
    assert text_or_file(text, "--context") == text


@pytest.mark.parametrize(
    "path",
    [
        "notes-missing.txt",
        "/no/such/notes",
        "./notes",
        "~/no-notes",
        "my notes.TXT",
        "a/b/c",
        "notes.txt ",
        "notes.txt\n",
        "notes.log",
        "minutes.docx",
        "notes.v2",
        "~/my notes",
        "C:\\My Documents\\notes",
    ],
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


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("n" * 300 + ".txt", "File name too long"),
        ("/tmp/" + "d/" * 3000 + "notes.txt", "File name too long"),
        ("~no-such-user/notes.txt", "no such user"),
    ],
    ids=["name", "path", "user"],
)
def test_a_path_that_cannot_be_asked_for_is_no_text(path, reason):
    with pytest.raises(UserError, match=reason):
        text_or_file(path, "--context")


def test_a_file_in_a_closed_folder_is_no_text(monkeypatch):
    def closed(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", closed)
    with pytest.raises(UserError, match="Permission denied"):
        text_or_file("closed/notes.txt", "--context")
    assert text_or_file("The heart beats.", "--context") == "The heart beats."


def test_a_dash_is_the_standard_input(monkeypatch):
    def given(raw):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        return text_or_file("-", "--context")

    assert given("Zürich".encode()) == "Zürich" and given("Zürich".encode("utf-16")) == "Zürich"
    for raw, message in ((b"", "standard input is empty"), (b"Z\xfc", "standard input is not UTF-8")):
        with pytest.raises(UserError, match=message):
            given(raw)


PAGE = b"<!DOCTYPE html><html><body>404</body></html>"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK\x03\x04rest", "zip archive; unpack"),
        (b"PAR1rest", "Parquet; prepare_data.py reads it"),
        (gzip.compress(b"PAR1rest", mtime=0), "Parquet"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"0" * 257 + b"ustar" + b"0" * 300, "tar archive"),
        (b"{\\rtf1 text}", "RTF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (PAGE, "web page"),
        (b"\xef\xbb\xbf\n" + PAGE.lower(), "web page"),
        (b"<!-- saved -->\n<HTML>", "web page"),
        (b'<?xml version="1.0"?>\n' + PAGE, "web page"),
        ("text".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        ("text".encode("utf-16")[:-1], "UTF-16 that breaks off"),
        (gzip.compress(b"text" * 100, mtime=0)[:-9], "damaged gzip"),
        (b"Z\xfcrich", "not UTF-8: byte 1 is 0xfc.*iconv"),
        (b"\xef\xbb\xbf\n", "is empty"),
        ("\n".encode("utf-16"), "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
    ],
)
def test_what_is_no_text_is_called_by_its_name(raw, message, tmp_path):
    (tmp_path / "file.json").write_bytes(raw)
    with pytest.raises(UserError, match=message) as refused:
        read_text(tmp_path / "file.json")
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_text_is_read_in_any_marked_encoding(encoding, compress, tmp_path):
    (tmp_path / "file").write_bytes(compress("Zürich\r\n\N{HONEYBEE}".encode(encoding)))
    assert read_text(tmp_path / "file") == "Zürich\r\n\N{HONEYBEE}"
