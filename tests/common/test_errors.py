import pytest

from common.errors import first_line, last_line


@pytest.mark.parametrize(
    ("problem", "otherwise", "line"),
    [
        (ValueError("\n no such file \nTraceback"), "", "no such file"),
        (ValueError(), "", "ValueError"),
        (ValueError("  \n"), "it does not answer", "it does not answer"),
        (None, "it does not answer", "it does not answer"),
        ("error 403\nForbidden", "", "error 403"),
        (OSError("x" * 600), "", "x" * 500),
    ],
)
def test_the_first_line_says_what_happened(problem, otherwise, line):
    assert first_line(problem, otherwise) == line


def test_the_last_line_is_the_last_that_says_something():
    assert last_line("starting\n error: no room \n\n", "nothing") == "error: no room"
    assert last_line(" \n", "nothing") == "nothing"
