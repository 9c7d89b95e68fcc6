"""Which settings belong to which source, and what each source is prepared by."""

import contextlib

import pytest

from common.data import hub_sets, labelled_texts, prepared, questions, sources
from common.errors import UserError

GIVEN = {
    "train_file": "a.json",
    "test_file": "b.json",
    "path": "folder",
    "dataset": "squad",
    "on_bad_rows": "skip",
    "columns": "question=q",
    "format": "squad",
    "language": "de",
    "multi_label": True,
    "config": "default",
    "revision": "main",
    "train_split": "train",
    "test_split": "test",
    "mix": "a,b",
}
NEEDED = [(source, name) for source, kind in sources.SOURCES.items() for name in kind.needed]


def test_some_sources_need_settings():
    assert len(NEEDED) >= 5


@pytest.mark.parametrize(("source", "name"), NEEDED)
def test_a_setting_that_a_source_needs_is_named_as_its_flag(source, name):
    kind = sources.SOURCES[source]
    given = {each: GIVEN[each] for each in kind.needed}
    sources.check(source, given)
    del given[name]
    with pytest.raises(UserError, match=f"--source {source} needs --{name}"):
        sources.check(source, given)


@pytest.mark.parametrize("source", sources.SOURCES)
def test_a_setting_of_other_sources_is_refused_with_their_names(source):
    kind = sources.SOURCES[source]
    given = {each: GIVEN[each] for each in kind.needed + kind.optional}
    sources.check(source, given)
    for name in GIVEN.keys() - given.keys():
        with pytest.raises(UserError, match=f"--{name} belongs to --source .*, not to --source {source}"):
            sources.check(source, given | {name: GIVEN[name]})


@pytest.mark.parametrize(
    ("source", "given", "module", "function", "folder"),
    [
        ("files", {"train_file": "a", "test_file": "b"}, questions, "prepare_files", "squad_data"),
        ("text", {"train_file": "a", "test_file": "b"}, labelled_texts, "prepare_files", "imdb_data"),
        ("hub", {}, questions, "prepare_hub", "squad_data"),
        ("hub", {"dataset": "imdb"}, labelled_texts, "prepare_hub", "imdb_data"),
        ("aclimdb", {"path": "c"}, labelled_texts, "prepare_aclimdb", "imdb_data"),
        ("saved", {"path": "c", "on_bad_rows": "skip"}, questions, "prepare_saved", "squad_data"),
    ],
)
def test_a_source_is_read_by_its_own_function_into_its_own_folder(
    source, given, module, function, folder, monkeypatch
):
    calls = []
    monkeypatch.setattr(module, function, lambda *args, **kwargs: calls.append((args, kwargs)))
    _, chosen = sources.prepare(source, given, seed=7, validation_share=0.2)
    ((args, kwargs),) = calls
    assert chosen.name == folder and chosen in args
    assert (kwargs["seed"], kwargs["validation_share"]) == (7, 0.2)
    assert kwargs.get("on_bad_rows") == given.get("on_bad_rows")


@pytest.mark.parametrize(
    ("dataset", "kind", "folder"),
    [
        ("squad_v2", "qa", "squad_data"),
        ("imdb", "text", "imdb_data"),
        ("ada/towers", "qa", "towers_data"),
        ("ada/moods", "text", "moods_data"),
    ],
)
def test_a_further_flag_changes_no_folder(dataset, kind, folder, monkeypatch):
    @contextlib.contextmanager
    def opened(repository, **_):
        yield hub_sets.HubSet(repository, {}, [], {}, kind)

    monkeypatch.setattr(hub_sets, "opened", opened)
    for module in (questions, labelled_texts):
        monkeypatch.setattr(module, "prepare_parts", lambda *_, **__: "record")
    assert sources.prepare("hub", {"dataset": dataset, "on_bad_rows": "skip"})[1].name == folder


def test_the_sample_is_prepared_where_it_is_wanted(tmp_path):
    record, folder = sources.prepare("sample", {}, tmp_path / "here")
    splits, stored = prepared.load(folder)
    assert folder == tmp_path / "here" and stored.fingerprint == record.fingerprint
    assert {name: len(split) for name, split in splits.items()} == {
        name: counts["questions"] for name, counts in record.counts.items()
    }
