"""What registering and rolling back print."""

from dataclasses import replace

import pytest

from common.registry import reporting
from common.registry.register import Outcome
from common.tasks.table import task_of

CHAMPION = Outcome("bert-squad-qa", task_of("extractive-qa"), "3", "champion", "run1", is_new=True, notes=())


def test_a_champion_is_served_by_its_alias_and_others_by_their_number():
    text = reporting.registered(CHAMPION)
    assert text.splitlines()[0] == "bert-squad-qa version 3, champion: run run1"
    assert "mlflow models serve -m models:/bert-squad-qa@champion --env-manager local -p 5001" in text
    text = reporting.registered(replace(CHAMPION, alias=None, is_new=False))
    assert text.splitlines()[0] == "bert-squad-qa version 3: run run1 (registered before)"
    assert "-m models:/bert-squad-qa/3 " in text


@pytest.mark.parametrize(
    ("alias", "change"), [("challenger", "would be challenger"), (None, "would stay as it is")]
)
def test_a_dry_run_says_what_would_become_of_the_run(alias, change):
    text = reporting.foreseen(replace(CHAMPION, alias=alias))
    assert text == f"Dry run, nothing was written: run run1 {change}."


def test_a_rollback_names_both_versions_and_the_servers_that_must_restart():
    text = reporting.rolled_back("m", "3", "2", dry_run=False)
    assert "version 2, the previous champion, replaced version 3" in text and "restart it" in text
    text = reporting.rolled_back("m", "3", "2", dry_run=True)
    assert "version 2, the previous champion, would replace version 3" in text and "restart" not in text
