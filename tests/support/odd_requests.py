"""Requests to a server: good ones in every format, and any JSON, parameters and bytes that a client could send."""

import http.client
import io
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis import strategies as st

GOOD = {
    "question": "Who shared the prize?",
    "context": "In 1903 Marie Curie shared the Nobel Prize in Physics.",
}


def as_formats(rows):
    """The same rows in every format that MLflow's server knows."""
    columns = ["question", "context"]
    rows = [{name: row[name] for name in columns} for row in rows]
    return {
        "dataframe_split": {"columns": columns, "data": [list(row.values()) for row in rows]},
        "dataframe_records": rows,
        "instances": rows,
        "inputs": rows,
        "inputs as columns": {name: [row[name] for row in rows] for name in columns},
    }


FORMATS = list(as_formats([GOOD]))


def body(kind, rows):
    return {kind.split()[0]: as_formats(rows)[kind]}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


# Control characters, right to left, emoji with joiners, combining marks, no character at all.
odd = st.text(
    st.sampled_from(
        "\x00\x07\x1b\x7f\u0085\u200b\u2028\u202e\u0634\u05d0👩\u200d🚀🍎\u0301\ufeff\uffff a.?\n"
    ),
    max_size=40,
)


text = odd | st.text(max_size=60) | st.text(st.characters(categories=["Cs", "L"]), max_size=5)
rows = st.fixed_dictionaries(
    {}, optional={"question": text | anything, "context": text | anything, "id": anything}
)


names = st.sampled_from(["top_k", "max_answer_length", "null_threshold", "technique"]) | st.text(max_size=5)
parameters = st.dictionaries(names, anything, max_size=3) | anything
KEYS = ["inputs", "instances", "dataframe_records", "dataframe_split", "messages", "prompt", "input"]
bodies = st.one_of(
    st.builds(
        lambda kind, row: body(kind, [row]),
        st.sampled_from(FORMATS),
        st.fixed_dictionaries({"question": text, "context": text}),
    ),
    st.builds(lambda kind, rows: {kind: rows}, st.sampled_from(KEYS), st.lists(rows, max_size=3) | anything),
    anything,
)


def processes(pid):
    """/proc/*/status of a process and its children."""
    found = [Path(f"/proc/{pid}/status")]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += processes(child)
    return found


def send_zeros(address, size, chunked, length=None) -> str:
    """The status of a request with a body of this size; "closed" where the server ends the connection meanwhile."""
    host = urlsplit(address)
    connection = http.client.HTTPConnection(host.hostname, host.port, timeout=60)
    piece = b"0" * 2**20
    try:
        connection.putrequest("POST", host.path)
        connection.putheader("Content-Type", "application/json")
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            if length is not None:
                connection.putheader("Content-Length", str(length))
        else:
            connection.putheader("Content-Length", str(size))
        connection.endheaders()
        for _ in range(size // len(piece)):
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        return str(connection.getresponse().status)
    except (ConnectionError, http.client.HTTPException):
        return "closed"
    finally:
        connection.close()


def as_parquet(frame) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def refused(status, text):
    """The text of a refusal, which is short, plain and no traceback."""
    assert 400 <= status < 500, (status, text[:2000])
    assert 0 < len(text) < 3000, text[:3000]
    assert "Traceback" not in text and "stack_trace" not in text and 'File \\"' not in text, text[:3000]
    return text
