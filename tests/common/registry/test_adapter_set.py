"""One base with many adapters: registered from runs, answered as each does alone, with one copy of the base's weights."""

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from common.data import prepared
from common.errors import UserError
from common.models import base as models
from common.models import bundles
from common.registry import adapter_set
from common.serving import extractive_qa
from tests.support import stores, tampering, trained
from tests.support.questions import EXAMPLES
from tests.support.techniques import DECLARED, TECHNIQUES

EVERY = [key for key in DECLARED if key != "standard"]
# Through the store: each way to stand on a base once.
KEYS = ["lora", "prefix-tuning", "prompt-encoder"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder, test examples, technique's name → (run id, its saved model alone), what was registered, it loaded)."""
    folder = tmp_path_factory.mktemp("adapters")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        runs = {}
        for i, key in enumerate([*KEYS, "standard"]):
            id_ = trained.log_run(
                folder,
                tiny,
                record,
                examples,
                experiment="all",
                technique=key,
                validation_f1=50.0 - i,
                seed=i,
                language="de",
            )
            runs[TECHNIQUES[key].name] = id_, folder / f"{key}-{i}"
        # Worse than the LoRA run that is there.
        trained.log_run(folder, tiny, record, examples, experiment="all", validation_f1=1.0, seed=9)
        done = adapter_set.register_adapters("all")
        model = mlflow.pyfunc.load_model(f"models:/{adapter_set.NAME}@champion")
        yield folder, examples, runs, done, model


def ask(model, examples, **params):
    rows = pd.DataFrame([{name: e[name] for name in ("question", "context")} for e in examples])
    return model.predict(rows, params=params).to_dict("records")


def test_it_holds_the_best_of_each_technique_but_all_weights(world):
    _, _, runs, done, _ = world
    assert done.is_new and done.runs == {TECHNIQUES[key].name: runs[TECHNIQUES[key].name][0] for key in KEYS}
    again = adapter_set.register_adapters("all")
    assert (again.version, again.is_new) == (done.version, False)


def test_each_technique_answers_as_it_does_alone(world):
    _, examples, runs, _, model = world
    for technique in world[3].runs:
        folder = runs[technique][1]
        alone = extractive_qa.Answerer(folder / "bundle", folder / "base").answer(examples, top_k=3)
        for found, ranked in zip(ask(model, examples, technique=technique, top_k=3), alone, strict=True):
            assert found.pop("technique") == technique
            for got, want in zip([found, *found.pop("alternatives")], ranked, strict=True):
                assert (got["answer"], got["start"], got["end"]) == (
                    want["answer"],
                    want["start"],
                    want["end"],
                )
                assert got["score"] == pytest.approx(want["score"], abs=1e-4)


def test_all_answer_side_by_side_and_the_best_one_by_default(world):
    _, examples, _, done, model = world
    rows = ask(model, examples, technique="ALL")
    assert [[answer["technique"] for answer in row["answers"]] for row in rows] == [list(done.runs)] * len(
        rows
    )
    for i, technique in enumerate(done.runs):
        assert [row["answers"][i] for row in rows] == ask(model, examples, technique=technique.upper())
    assert ask(model, examples) == [row["answers"][0] for row in rows]
    assert (
        len({tuple(a["score"] for row in rows for a in [row["answers"][i]]) for i in range(len(done.runs))})
        > 1
    )
    (first, *_) = ask(model, examples[:1], technique="all", raw_scores=True)[0]["answers"]
    assert first["raw_score"] == first["score"]
    with pytest.raises(MlflowException, match="max_error is 0.1, which this model cannot promise"):
        ask(model, examples, max_error=0.1)
    with pytest.raises(MlflowException, match="technique is 'GPT'; choose one of .*LoRA.*all") as caught:
        ask(model, examples, technique="GPT")
    assert caught.value.get_http_status_code() == 400


def ask_each(model, examples, techniques, **params):
    rows = [
        {"question": e["question"], "context": e["context"], "technique": technique}
        for e, technique in zip(examples, techniques, strict=True)
    ]
    return model.predict(pd.DataFrame(rows), params=params).to_dict("records")


def test_each_row_of_a_request_chooses_its_technique(world):
    _, examples, _, done, model = world
    first, second, third = done.runs
    techniques = ([third, first.lower(), None, second, "", third] * len(examples))[: len(examples)]
    chosen = [each or first for each in techniques]
    alone = {technique: ask(model, examples, technique=technique, top_k=2) for technique in done.runs}
    found = ask_each(model, examples, techniques, top_k=2)
    assert [row["technique"].lower() for row in found] == [each.lower() for each in chosen]
    for i, row in enumerate(found):
        want = alone[row["technique"]][i]
        assert (row["answer"], row["start"], row["end"]) == (want["answer"], want["start"], want["end"])
        assert row["score"] == pytest.approx(want["score"], abs=1e-5)
        assert len(row["alternatives"]) == len(want["alternatives"])
    assert len({row["technique"] for row in found}) == 3


@pytest.mark.parametrize(
    ("techniques", "params", "reason"),
    [
        (["LoRA", "GPT"], {}, "row 1: technique is 'GPT'; choose one of .*LoRA"),
        (["LoRA", 5], {}, "row 1: technique must be a string, not int"),
        (["all", "LoRA"], {}, "row 0: technique is 'all', which is for whole requests"),
        (["LoRA", None], {"technique": "LoRA"}, "leave one of the two out"),
    ],
)
def test_a_row_whose_technique_cannot_answer_is_refused(techniques, params, reason, world):
    _, examples, _, _, model = world
    with pytest.raises(MlflowException, match=reason) as caught:
        ask_each(model, examples[:2], techniques, **params)
    assert caught.value.get_http_status_code() == 400


def test_whatever_an_answer_holds_is_declared(world):
    _, examples, _, _, model = world
    schema = model.metadata.get_output_schema()
    further = {"top_k": 2, "null_odds": True, "raw_scores": True}
    assert set(ask(model, examples[:1], **further)[0]) <= set(schema.input_names())
    (beside,) = [column.type.dtype for column in schema if column.name == "answers"]
    for answer in ask(model, examples[:1], technique="all", **further)[0]["answers"]:
        assert "null_odds" in answer and set(answer) <= {each.name for each in beside.properties}


def test_it_says_what_it_was_trained_on(world):
    _, _, runs, done, _ = world
    tags = mlflow.MlflowClient().get_model_version(done.name, done.version).tags
    of_run = mlflow.get_run(next(iter(runs.values()))[0]).data.tags
    shared = ("task", "checkpoint", "base_fingerprint", "data_name", "data_version", "data_language")
    assert {name: tags[name] for name in shared} == {name: of_run[name] for name in shared}


def test_all_share_the_weights_of_one_base(world):
    answerers = world[4].unwrap_python_model().models.answerers.values()
    tensors = [{p.data_ptr(): p.numel() for p in a.model.parameters()} for a in answerers]
    shared = set.intersection(*map(set, tensors))
    family = models.family_of("bert")
    base, _ = models.load_base(models.resolve_checkpoint(next(iter(answerers)).info.checkpoint))
    head = sum(
        p.numel() for name in family.heads["QuestionAnswering"] for p in base.get_submodule(name).parameters()
    )
    assert sum(tensors[0][place] for place in shared) == sum(p.numel() for p in base.parameters()) - head


@pytest.mark.long
@pytest.mark.parametrize(
    "door", (tampering.loaded, tampering.asked_on_the_page), ids=lambda door: door.__name__
)
def test_a_changed_byte_of_any_of_its_files_is_refused_by_name(door, world):
    uri = f"models:/{adapter_set.NAME}@champion"
    door(uri)
    names = tampering.refused(lambda: door(uri), [tampering.folder_of(uri)], [tampering.changed])
    weights = [name for name in names if name.endswith(".safetensors")]
    assert len(weights) == 1 + len(KEYS) and any(name.startswith("code/") for name in names), names


def test_no_technique_changes_the_base_that_it_shares(tmp_path, tiny):
    shared, examples = None, EXAMPLES
    for i, key in enumerate(EVERY):
        folder = tmp_path / key
        folder.mkdir()
        bundle, base, model, tokenizer, info = trained.save(folder, tiny, key, seed=i)
        if shared is None:
            shared = bundles.load_shared_base(base, info)
            before = {name: tensor.clone() for name, tensor in shared.model.state_dict().items()}
        answers = extractive_qa.Answerer(bundle, shared=shared).answer(examples)
        for p, ranked in zip(trained.predict(model, tokenizer, info, examples), answers, strict=True):
            assert (ranked[0]["answer"], ranked[0]["start"], ranked[0]["end"]) == (p.text, p.start, p.end)
            assert ranked[0]["score"] == pytest.approx(p.probability, abs=1e-4)
        for name, tensor in shared.model.state_dict().items():
            assert torch.equal(tensor, before[name]), (key, name)


def test_a_model_that_answers_otherwise_than_its_run_is_not_registered(world, monkeypatch):
    original = adapter_set.best_of_each

    def swapped(*args):
        best, notes = original(*args)
        return dict(list(best.items())[::-1][:2]), notes

    monkeypatch.setattr(adapter_set, "best_of_each", swapped)
    assemble = adapter_set.assemble
    monkeypatch.setattr(
        adapter_set,
        "assemble",
        lambda runs, folder: assemble(dict(zip(runs, list(runs.values())[::-1], strict=True)), folder),
    )
    before = len(mlflow.MlflowClient().search_model_versions(f"name = '{adapter_set.NAME}'"))
    with pytest.raises(UserError, match="does not answer as it did when it was trained"):
        adapter_set.register_adapters("all")
    assert len(mlflow.MlflowClient().search_model_versions(f"name = '{adapter_set.NAME}'")) == before


def test_without_an_adapter_there_is_nothing_to_register(world, tiny):
    folder, examples, *_ = world
    record = prepared.load(folder / "data")[1]
    trained.log_run(folder, tiny, record, examples, experiment="whole", technique="standard", seed=20)
    with pytest.raises(UserError, match="trained an adapter"):
        adapter_set.register_adapters("whole")
    with pytest.raises(UserError, match="no finished run"):
        adapter_set.register_adapters("nowhere")
