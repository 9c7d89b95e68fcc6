"""Rows of every format of table, in pieces, with their places and faults."""

import csv
import gzip
import json
import tracemalloc

import pytest

from common.data import tables
from common.errors import UserError

ROWS = [
    {"question": 'Who said "no"?', "context": "Marie,\r\nthen Pierre;\tboth \u2028 said\x85 so.", "n": "1"},
    {"question": "凸凹?", "context": "Straße | \N{HONEYBEE}", "n": "2"},
    {"question": "", "context": " ", "n": "3"},
]


def write(path, rows=ROWS):
    """The rows in the format of the name's end, compressed where it ends in .gz."""
    import pyarrow
    import pyarrow.parquet

    kind, compress = path.name.removesuffix(".gz").rpartition(".")[2], path.suffix == ".gz"
    table = pyarrow.Table.from_pylist(rows)
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=max(2, len(rows) // 6))
        return path
    if kind in ("arrow", "feather"):
        new = pyarrow.ipc.new_file if kind == "feather" else pyarrow.ipc.new_stream
        with pyarrow.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return path
    with (gzip.open if compress else open)(path, "wt", newline="", encoding="utf-8") as file:
        if kind in ("csv", "tsv", "txt"):
            delimiter = {"csv": ",", "tsv": "\t", "txt": ";"}[kind]
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        elif kind == "jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            json.dump(rows, file)
    return path


KINDS = ["csv", "csv.gz", "tsv", "txt", "jsonl", "jsonl.gz", "json", "json.gz", "parquet", "arrow", "feather"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows(kind, tmp_path):
    table = tables.read(write(tmp_path / f"a.{kind}"))
    places, rows = zip(*table.rows, strict=True)
    assert list(rows) == ROWS
    json_text = kind.startswith("json")
    assert table.columns == (None if json_text else ("question", "context", "n"))
    rowwise = kind.removesuffix(".gz") in ("json", "parquet", "arrow", "feather")
    assert places[-1] == ("row 2" if rowwise else "line 3" if json_text else "line 5")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "jsonl.gz", "parquet", "arrow", "feather"])
def test_a_large_file_is_read_in_pieces(kind, tmp_path):
    rows = [{"question": f"{n}?", "context": "long " * 400} for n in range(6000)]
    path = write(tmp_path / f"a.{kind}", rows)
    del rows
    # What libraries are imported and built for good is not counted.
    list(tables.read(write(tmp_path / f"small.{kind}")).rows)
    tracemalloc.start()
    try:
        assert sum(len(row["context"]) for _, row in tables.read(path).rows) == 6000 * 2000
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()


def test_what_the_library_datasets_caches_is_read(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*.arrow")
    assert [row for _, row in tables.read(file).rows] == ROWS


def test_the_content_decides_where_the_name_does_not(tmp_path):
    for kind in ("parquet", "feather", "jsonl", "json"):
        path = write(tmp_path / f"a.{kind}")
        assert [row for _, row in tables.read(path.rename(tmp_path / "data")).rows] == ROWS


def test_names_that_are_given_decide_the_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text("frage, kurz;absatz\nWer?;Er, sie, es\n")
    rows = list(tables.read(tmp_path / "a.csv", known=("Frage, kurz", "absatz")).rows)
    assert rows == [("line 2", {"frage, kurz": "Wer?", "absatz": "Er, sie, es"})]


def test_rows_that_are_lists_have_a_fault_or_names(tmp_path):
    for content in ('[["a", "b"], ["c"], 5]', '["a", "b"]\n["c"]\n5\n'):
        (tmp_path / "a.json").write_text(content)
        assert [row for _, row in tables.read(tmp_path / "a.json").rows] == [
            " must be an object, not list.",
            " must be an object, not list.",
            " must be an object, not int.",
        ]
        named = [row for _, row in tables.read(tmp_path / "a.json", positions=("x", "y")).rows]
        assert named == [{"x": "a", "y": "b"}, {"x": "c"}, " must be an object, not int."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b" \n\n", "is empty"),
        ("a.csv", b'a,b\n1,"2" 3\n', "line 2: "),
        ("a.csv", b"\xef\xbb\xbfa,b\n" + b"1,2\n" * 3000 + b"\xff,1\n", "byte 12004 is 0xff.*iconv"),
        ("a.jsonl", b'{"a": 1}\n' * 9000 + b"\xff", "byte 81000 is 0xff"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16")[:-1], "UTF-16 that breaks off"),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 999, mtime=0)[:-9], "damaged gzip"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as parquet"),
        ("a.arrow", b"ARROW1 and no more", "cannot be read as Arrow"),
        ("a.arrow", b"", "cannot be read as Arrow"),
        ("a.csv", b"%PDF-1.7", "it is a PDF"),
        ("a.json", b"[1, 2", "is not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        list(tables.read(tmp_path / name).rows)
    assert name in str(refused.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_a_missing_file_and_a_folder_are_named(name, tmp_path):
    with pytest.raises(UserError, match=f"{name}.*No such file"):
        tables.read(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}.*(a folder|Is a directory)"):
        tables.read(tmp_path / name)


def test_globs_are_expanded_in_order(tmp_path, monkeypatch):
    for name in ("b.csv", "a.csv", "c/d.csv", "e[1].csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)

    def found(*patterns):
        return [str(path) for path in tables.expand(patterns)]

    assert found("b.csv", "?.csv", "**/*.csv") == ["b.csv", "a.csv", "c/d.csv", "e[1].csv"]
    assert found("e[1].csv", "none.csv") == ["e[1].csv", "none.csv"]
    with pytest.raises(UserError, match=r"\*\.tsv: no file matches it"):
        found("*.tsv")
