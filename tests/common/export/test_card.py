"""The model card: metadata that the hub's library reads, the run's figures, and a program that answers as the stored model."""

import json
import re
import shutil

import mlflow
import pytest
from huggingface_hub import ModelCard

from common.api import export
from common.data import prepared as prepared_data
from common.errors import NotHere
from common.export import card as cards
from common.export import samples, source
from common.registry import register
from common.serving import model_logging
from common.tasks.table import task_of
from common.tracking import runs
from tests.support import stores, trained
from tests.support.cells import CLASSIFICATION
from tests.support.exported import alone, saved
from tests.support.exported import of_hub as of_hub
from tests.support.exported import opened_here as opened_here
from tests.support.questions import EXAMPLES

LONG = " ".join(e["context"] for e in EXAMPLES)
"""A context of several windows."""
FORMATS = ["merged", "adapter"]


def program(folder):
    """The code sample of a card."""
    (found,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    return found


def run(text, folder, monkeypatch, capsys):
    """What a program prints that is run in a folder, within this process."""
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(compile(text, "card", "exec"), {})  # noqa: S102
    return capsys.readouterr().out.rstrip("\n")


def about(folder, **settings):
    """Change the settings of a saved model."""
    file = folder / "bundle.json"
    content = json.loads(file.read_text())
    content["settings"] |= settings
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "t5"])
@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
def test_the_program_answers_questions(
    format, family, version, tiny, tmp_path, opened_here, monkeypatch, capsys
):
    bundle = saved(tmp_path, tiny, "lora", family)
    answered = {}
    # Thresholds that make it answer, and not: "no answer" is never, and always, likely enough.
    for threshold in (1e9, -1e9) if version == "v2.0" else (0.0,):
        about(bundle, version=version, null_threshold=threshold)
        folder = tmp_path / f"out{threshold}"
        export(bundle, folder, format)
        for question, context in (("Who shared the prize?", LONG), (samples.ASKED, samples.TEXT)):
            text = program(folder).replace(samples.TEXT, context).replace(samples.ASKED, question)
            (answer,) = _served(bundle, [{"question": question, "context": context}])
            assert run(text, folder, monkeypatch, capsys) == answer["answer"]
            answered[threshold, question] = answer["answer"]
    assert len({bool(answer) for answer in answered.values()}) == (2 if version == "v2.0" else 1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("head", ["CausalLM", "Seq2SeqLM"])
def test_the_program_writes_answers(format, head, tiny, tmp_path, opened_here, monkeypatch, capsys):
    answers = set()
    for family in ("gpt2", "llama") if head == "CausalLM" else ("t5", "bart"):
        bundle = saved(tmp_path / family, tiny, "lora", family, head)
        export(bundle, tmp_path / family / "out", format)
        # One window, and several.
        for context in (EXAMPLES[0]["context"], LONG, LONG[::-1]):
            text = program(tmp_path / family / "out").replace(samples.TEXT, context)
            (answer,) = _served(bundle, [{"question": samples.ASKED, "context": context}])
            assert run(text, tmp_path / family / "out", monkeypatch, capsys) == answer["answer"]
            answers.add(answer["answer"])
    assert len(answers) > 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pairs", [False, True])
def test_the_program_labels_texts(format, pairs, tiny, tmp_path, opened_here, monkeypatch, capsys):
    bundle = saved(tmp_path, tiny, "lora", "bert", CLASSIFICATION)
    about(bundle, temperature=2.0, pairs=pairs)
    export(bundle, tmp_path / "out", format)
    texts = [samples.TEXT, "No."]
    asked = [
        {"text": a} | ({"text_pair": b} if pairs else {}) for a, b in zip(texts, texts[::-1], strict=True)
    ]
    lines = run(program(tmp_path / "out"), tmp_path / "out", monkeypatch, capsys).splitlines()
    for line, answer in zip(lines, _served(bundle, asked), strict=True):
        label, score = line.split()
        assert label == answer["label"] and float(score) == pytest.approx(answer["score"], abs=1e-4)


def test_the_program_gives_any_number_of_labels(tiny, tmp_path, opened_here, monkeypatch, capsys):
    bundle = saved(tmp_path, tiny, "lora", "bert", CLASSIFICATION)
    file = bundle / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"task": "multi-label-classification"}))
    seen = set()
    for thresholds in ([0.0, 1.1], [1.1, 0.0], [0.0, 0.0]):
        about(bundle, thresholds=thresholds)
        folder = tmp_path / str(thresholds)
        export(bundle, folder)
        lines = run(program(folder), folder, monkeypatch, capsys).splitlines()
        for line, answer in zip(
            lines, _served(bundle, [{"text": samples.TEXT}, {"text": "No."}]), strict=True
        ):
            assert sorted(eval(line)) == sorted(answer["labels"])  # noqa: S307
            seen.add(line)
    assert len(seen) == 3


def _served(bundle, records):
    task = task_of(json.loads((bundle / "bundle.json").read_text())["task"])
    return model_logging.module_of(task).best_answers(bundle, records)


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
def test_the_program_runs_with_the_libraries_alone(format, tiny, tmp_path, opened_here):
    bundle = saved(tmp_path, tiny)
    export(bundle, tmp_path / "out", format)
    (answer,) = _served(bundle, [{"question": samples.ASKED, "context": samples.TEXT}])
    assert alone(program(tmp_path / "out"), tmp_path / "out").strip() == answer["answer"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(id of a run that was registered, folder of its store)."""
    folder = tmp_path_factory.mktemp("world")
    with stores.in_force(folder), trained.checked_here():
        record = trained.prepare_data(folder)
        examples = prepared_data.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(
            folder, tiny, record, examples, experiment="squad-qa", language="de",
            learning_rate=0.005, num_train_epochs=3, output_dir=folder / "out",
        )  # fmt: skip
        register.register_best("squad-qa")
        (folder / "confidence").mkdir()
        (folder / "confidence" / "abstention.md").write_text(
            "Below the least raw score the model abstains.\n"
        )
        mlflow.MlflowClient().log_artifacts(run_id, str(folder / "confidence"), "confidence")
        yield run_id, folder


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_it_holds_the_runs_figures_as_the_hub_reads_them(format, world, tmp_path, opened_here):
    run_id, folder = world
    export(run_id, tmp_path / "my-model", format, license="apache-2.0")
    card = ModelCard.load(tmp_path / "my-model" / "README.md")
    data = card.data
    assert (data.license, data.language, data.pipeline_tag) == ("apache-2.0", "de", "question-answering")
    assert data.library_name == {"merged": "transformers", "adapter": "peft"}[format]
    assert {"bert", "lora", format} <= set(data.tags)
    assert data.metrics == ["f1", "exact_match"] and data.model_name == "my-model"
    (f1,) = [result for result in data.eval_results if result.metric_type == "f1"]
    assert f1.metric_value == 40.0 and "35.0 to 45.0" in f1.metric_name and f1.dataset_split == "test"
    assert re.search(r"\| F1 +\| +40\.0 \| +35\.0 to 45\.0 \|", card.text)
    assert "8 test questions" in card.text and run_id in card.text
    assert "## Results by slice" in card.text and "## When it is unsure" in card.text
    assert re.search(r"\| learning_rate +\| +0\.005 \|", card.text)
    assert "windows of 96 tokens that share 16" in card.text and "It may give no answer" in card.text
    # Nothing of this machine, and no text of the data.
    assert str(folder) not in card.content and "/" + folder.name not in card.content
    assert not [e for e in EXAMPLES if e["question"] in card.content]
    assert card.data.get("base_model") is None


@pytest.mark.parametrize(
    ("inputs", "from_hub"),
    [
        ({"content": {"checkpoint": "commit 0123"}}, True),
        ({"content": {"checkpoint": "files 0123"}}, False),
        ({"content": None}, False),
        (["damaged"], False),
    ],
)
def test_the_runs_inputs_say_whether_its_base_is_the_hubs(inputs, from_hub, world, tmp_path, monkeypatch):
    run_id, _ = world
    stored = source.opened(run_id, tmp_path)

    def left(run_id, names, folder):
        (folder / "inputs.json").write_text(json.dumps(inputs))

    monkeypatch.setattr(runs, "download", left)
    found = cards.recorded(stored)
    assert found.from_hub == from_hub and ("inputs.json" in found.missing) == isinstance(inputs, list)


def test_a_model_without_a_run_has_a_card_without_figures(tiny, tmp_path, opened_here):
    export(saved(tmp_path, tiny), tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results is None and "## Results" not in card.text
    assert (
        "## Use" in card.text and "## Limits" in card.text and "license" not in card.content.split("---")[1]
    )


def downloaded(run_id, folder):
    return mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model", dst_path=str(folder))


@pytest.mark.slow
def test_a_folder_whose_run_is_in_the_store_has_its_figures_and_settings(world, tmp_path, opened_here):
    run_id, _ = world
    done = export(downloaded(run_id, tmp_path / "copy"), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert re.search(r"\| learning_rate +\| +0\.005 \|", text) and "## Results" in text
    assert len(done.lines) == 2


@pytest.mark.slow
def test_where_figures_are_missing_the_export_says_so(world, tmp_path, opened_here, monkeypatch):
    run_id, _ = world
    copy = downloaded(run_id, tmp_path / "copy")
    # With its base inside, it needs no store.
    bundle = source.opened(str(copy), tmp_path / "whole").bundle
    (tmp_path / "alone").mkdir()
    for name, place in (("MLmodel", copy + "/MLmodel"), ("bundle", bundle)):
        target = tmp_path / "alone" / ("artifacts/bundle" if name == "bundle" else name)
        shutil.copytree(place, target) if name == "bundle" else shutil.copy(place, target)
    uri, elsewhere = mlflow.get_tracking_uri(), tmp_path / "elsewhere.db"
    try:
        mlflow.set_tracking_uri(f"sqlite:///{elsewhere}")
        done = export(tmp_path / "alone", tmp_path / "out")
    finally:
        mlflow.set_tracking_uri(uri)
    assert done.lines[2] == "Its card lacks figures: there is no store here." and not elsewhere.exists()
    assert "## Results" not in (tmp_path / "out" / "README.md").read_text()

    def cut(run_id, names, folder):
        (folder / "data_record.json").write_text("{")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "download", cut)
        done = export(tmp_path / "alone", tmp_path / "cut")
        assert re.match(f"Its card lacks figures: data_record.json of run {run_id} is damaged", done.lines[2])
        assert "## Results" in (tmp_path / "cut" / "README.md").read_text()

    def silent(run_id):
        raise NotHere("The store does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "recorded", silent)
        done = export(tmp_path / "alone", tmp_path / "again")
        assert done.lines[2] == "Its card lacks figures: The store does not answer."
        with pytest.raises(NotHere, match="does not answer"):
            export(run_id, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_base_of_the_hub_is_named_where_it_is_the_hubs(format, of_hub, tiny, tmp_path, opened_here):
    name, _ = of_hub("bert")
    bundle = saved(tmp_path, tiny, checkpoint=name)
    for checkpoint, named in (
        (name, name),
        ("embedded", "sentence-transformers/all-MiniLM-L6-v2"),
        ("models:/mine@champion", None),
        (str(tmp_path), None),
        # Written like the hub's, but folders of the machine that trained it.
        ("./my-bert", None),
        ("../bert", None),
        ("checkpoints/step-500", None),
    ):
        content = json.loads((bundle / "bundle.json").read_text())
        (bundle / "bundle.json").write_text(json.dumps(content | {"checkpoint": checkpoint}))
        folder = tmp_path / f"out {checkpoint}".replace("/", "_")
        export(bundle, folder, format)
        card = ModelCard.load(folder / "README.md")
        assert card.data.get("base_model") == named
        assert named or checkpoint not in card.text
        assert ("one segment" in card.text) == (checkpoint == "embedded")
