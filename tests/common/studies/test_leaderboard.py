"""The order in which techniques are tried where not all can be."""

from common.reports.result_tables import RESULTS, read
from common.studies import leaderboard
from tests.support.techniques import TECHNIQUES


def test_the_standing_of_techniques_is_that_of_the_leaderboard():
    keys = {kind.name: key for key, kind in TECHNIQUES.items()}
    rows = [row for row in read(RESULTS / "peft_full.json")["rows"] if row["technique"] in keys]
    assert len(rows) > 10
    assert leaderboard.ordered(keys[row["technique"]] for row in rows) == [
        keys[row["technique"]] for row in rows
    ]
    assert leaderboard.ordered(["new", "head", "lora"]) == ["lora", "head", "new"]
    assert set(leaderboard.STANDING) == set(keys.values()) - {"peft"}
