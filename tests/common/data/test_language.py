import pytest

from common.data.language import checked, named
from common.errors import UserError


def test_the_innermost_record_that_names_a_language_counts():
    assert named({"language": "de"}, {"title": "x"}, {"lang": "zh-Hans"}) == "zh-Hans"
    assert named({"language": "DE"}, {"title": "x"}, []) == "de"
    assert named({"language": "German"}, {"lang": 3}) is None


@pytest.mark.parametrize("language", ["german", "", "de_DE", "x" * 50])
def test_what_is_no_code_is_refused(language):
    with pytest.raises(UserError, match="--language is .*: give a code such as de"):
        checked(language)
