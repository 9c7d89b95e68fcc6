"""A version's page fits into the database of a team's server: PostgreSQL takes 5000 characters of it, SQLite any number."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from common.registry import versions
from common.registry.gate import CHAMPION, Rules, Verdict
from common.training.settings import RunArgs
from tests.support.techniques import TECHNIQUES

TAGS = dict(technique="LoRA", checkpoint="c", data_name="d", data_version="v2.0", data_fingerprint="ab" * 32) | dict(
    run_id="r", experiment="e", trainable_parameters="1", total_parameters="2"
)  # fmt: skip
USUAL = {
    name: str(value) for made in (RunArgs(), TECHNIQUES["lora"]()) for name, value in asdict(made).items()
}


class Client:
    """Holds the one page that it is given, if a server would take it."""

    def _hold(self, page):
        assert len(page) <= 5000
        self.page = page
        return self.get_model_version()

    def create_model_version(self, *_, description, **__):
        return self._hold(description)

    def update_model_version(self, name, version, description):
        self._hold(description)

    def get_model_version(self, *_):
        return SimpleNamespace(name="m", version="1", description=self.page, tags={})

    def get_logged_model(self, _):
        return SimpleNamespace(tags={})

    def create_registered_model(self, *_, **__):
        pass

    set_model_version_tag = set_logged_model_tags = create_registered_model


@pytest.mark.parametrize(
    ("more", "whole"),
    [
        ({}, True),
        # As long as a rate's source and the content of a file of PEFT's are.
        ({"learning_rate_source": 15 * "default for a small model "}, True),
        ({"peft_config": 6000 * "x"}, True),
        ({f"field{i}": 150 * "x" for i in range(60)}, False),
    ],
)
@pytest.mark.parametrize("reasons", [1, 200])
def test_a_page_and_its_verdict_are_cut_where_they_are_too_long(more, whole, reasons):
    page = versions.describe(TAGS, USUAL | more, "checked")
    client = Client()
    made = versions.create(client, "m", "about", "models:/1", {}, page)
    assert (client.page == page) == whole and "- r: 16\n" in versions.describe(TAGS, USUAL, "")
    verdict = Verdict(CHAMPION, tuple(f"reason {i} of several" for i in range(reasons)))
    # A second verdict takes the place of the first.
    for _ in range(2):
        versions.note(client, made, verdict, None, {"size_mib": 1.0}, Rules())
    assert client.page.startswith(page[:1000]) and client.page.count(versions.PROMOTION) == 1
    assert "- reason 0 of several\n" in client.page
    assert client.page.endswith("size 1.0 MiB.\n") == (reasons == 1)
