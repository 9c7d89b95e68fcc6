import pytest

from common.errors import UserError
from common.faults import refuse


def _faults(number):
    return [{"place": f"line {n}", "reason": ": is wrong."} for n in range(number)]


def test_no_fault_is_no_error():
    refuse("file", [])


@pytest.mark.parametrize(("number", "listed", "more"), [(2, 2, ""), (20, 20, ""), (23, 20, "... and 3 more")])
def test_the_first_20_are_listed_and_the_rest_is_counted(number, listed, more):
    with pytest.raises(UserError) as refused:
        refuse("file", _faults(number))
    first, *lines = str(refused.value).splitlines()
    assert first.startswith(f"file has {number} faults") and "--on_bad_rows skip" in first
    assert lines[:listed] == [f"  line {n}: is wrong." for n in range(listed)]
    assert "".join(lines[listed:]).strip() == more


def test_a_single_fault_is_one_line():
    with pytest.raises(UserError, match="^file: line 0: is wrong.$"):
        refuse("file", _faults(1))
