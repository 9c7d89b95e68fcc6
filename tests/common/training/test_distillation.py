"""Students with a teacher: the loss, the file of the teacher's logits, runs that repeat and runs that go on."""

import re
import shutil
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch
import transformers

from common.data import labelled_texts
from common.tasks.extractive_qa.windows import make_windows
from common.tasks.table import TASKS
from common.training import distillation, fit, job
from common.training.settings import RunArgs
from tests.support import stores, texts, trained, trainings
from tests.support.techniques import DECLARED, TECHNIQUES
from tests.support.trainings import curve, same


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with data and a store that is in force, URI of a trained teacher)."""
    folder = tmp_path_factory.mktemp("taught")
    with stores.in_force(folder):
        trained.prepare_data(folder)
        lora = TECHNIQUES["lora"](num_train_epochs=3.0, learning_rate=1e-2)
        teacher = trainings.train(lora, folder, tiny("bert"), folder / "out", "teachers", seed=5)
        yield folder, f"runs:/{teacher.info.run_id}/model"


@pytest.fixture
def student(world, tiny, tmp_path):
    """Train a student; gives its run. technique: its key."""

    def go(technique="lora", epochs=2.0, output="out", **fields):
        of = TECHNIQUES[technique](num_train_epochs=epochs)
        return trainings.train(of, world[0], tiny("bert"), tmp_path / output, tmp_path.name, **fields)

    return go


def test_the_loss_is_the_weighted_sum():
    task = TASKS["extractive-qa"]
    torch.manual_seed(0)
    logits, taught = torch.randn(2, 4, 2), torch.randn(2, 4, 2)
    mask, labels = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]), torch.tensor([[1, 2], [0, 0]])

    def model(**inputs):
        assert set(inputs) == {"input_ids", "attention_mask"}
        return SimpleNamespace(start_logits=logits[..., 0], end_logits=logits[..., 1])

    batch = {"input_ids": mask, "attention_mask": mask, distillation.TAUGHT: taught}
    args = RunArgs(teacher="x", distillation_weight=0.3, distillation_temperature=2.0)
    found = distillation.loss_of(task, task.loss, args)(model, batch, labels)
    hard = soft = 0.0
    for row, length in enumerate((4, 3)):
        for end in range(2):
            own, its = logits[row, :length, end], taught[row, :length, end]
            hard -= float(own.log_softmax(0)[labels[row, end]])
            p, q = (its / 2).softmax(0), (own / 2).softmax(0)
            soft += float((p * (p / q).log()).sum())
    assert float(found) == pytest.approx(0.7 * hard + 0.3 * 4 * soft, rel=1e-5)
    assert set(batch) == {"input_ids", "attention_mask", distillation.TAUGHT}


def test_a_weight_of_zero_trains_as_without_a_teacher_bit_for_bit(world, student, capsys):
    alone = student()
    assert "teacher: " not in capsys.readouterr().err
    taught = student(teacher=world[1], distillation_weight=0.0)
    assert re.search(r"teacher: +0%.* 0/\d+ ", capsys.readouterr().err)
    assert curve(alone) == curve(taught) and same(alone, taught)
    assert alone.data.tags["run_fingerprint"] != taught.data.tags["run_fingerprint"]
    other = student(teacher=world[1], distillation_weight=0.9)
    assert curve(other) != curve(alone) and not same(alone, other)
    assert other.data.tags["teacher"] == other.data.params["teacher"] == world[1]
    assert other.data.params["distillation_weight"] == "0.9"
    assert "distillation_weight" not in alone.data.params


@pytest.mark.long
def test_a_student_that_follows_the_teacher_alone_comes_close_to_it(world, student):
    """Its answers on the training questions, taught without any label."""
    far, near = (
        student(
            teacher=world[1], distillation_weight=1.0, distillation_temperature=1.0, epochs=epochs, seed=3
        )
        for epochs in (1.0, 8.0)
    )
    assert curve(near)[-1][1] < 0.5 * curve(far)[0][1]


def test_the_teachers_logits_are_those_that_it_answers_with(world, student, monkeypatch, tmp_path):
    """Every window has the logits that the teacher gives it alone."""
    seen = {}

    def kept(planned, train, *rest):
        seen["split"] = original(planned, train, *rest)
        shutil.copy(planned.output_dir / distillation.FILE, tmp_path / "kept.npy")
        return seen["split"]

    original = distillation.taught
    monkeypatch.setattr(distillation, "taught", kept)
    student(teacher=world[1])
    features = seen["split"].features
    from common.models import bundles
    from common.serving import stored_code

    model, _, _ = bundles.load_bundle(stored_code.verified(world[1], tmp_path / "t") / "artifacts" / "bundle")
    logits, begin = np.load(tmp_path / "kept.npy"), 0
    assert len(logits) == features.lengths.sum()
    for i in range(len(features)):
        item = features.features[i]
        inputs = {name: torch.from_numpy(item[name])[None] for name in item if name != "labels"}
        with torch.no_grad():
            out = model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
        found = torch.stack([out.start_logits[0], out.end_logits[0]], -1).numpy()
        assert np.allclose(logits[begin : begin + len(found)], found, atol=1e-4)
        begin += len(found)


class Killed(BaseException):
    """What a signal does to a training."""


def killed_at(step, monkeypatch):
    """Stop the training before a step, as often as it is reached."""

    def begin(self):
        if self.state.global_step == step:
            raise Killed
        original(self)

    original = job.TaskTrainer.begin_step
    monkeypatch.setattr(job.TaskTrainer, "begin_step", begin)


@pytest.mark.long
@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_run_goes_on_with_the_same_logits(damaged, world, student, tmp_path, monkeypatch):
    whole = student(output="whole", teacher=world[1])
    with monkeypatch.context() as patch:
        killed_at(5, patch)
        with pytest.raises(Killed):
            student(teacher=world[1])
    file = tmp_path / "out" / distillation.FILE
    before = file.read_bytes()
    if damaged:
        file.write_bytes(before[:-4] + b"\1\2\3\4")
    computed = []
    original = distillation._write
    monkeypatch.setattr(distillation, "_write", lambda *args: computed.append(1) or original(*args))
    gone_on = student(teacher=world[1], resume=True)
    assert bool(computed) == damaged
    assert gone_on.info.status == "FINISHED" and dict(curve(gone_on)) == dict(curve(whole))
    assert same(gone_on, whole)


@pytest.mark.parametrize(
    "technique",
    [
        key
        if key in ("standard", "prefix-tuning", "bottleneck")
        else pytest.param(key, marks=pytest.mark.long)
        for key in DECLARED
        if key != "lora"
    ],
)
def test_every_technique_can_have_a_teacher(technique, world, student):
    run = student(technique, teacher=world[1], epochs=1.0)
    assert run.info.status == "FINISHED" and run.data.tags["teacher"] == world[1]


def test_a_local_checkpoint_with_a_trained_head_teaches(world, student, tiny):
    run = student(teacher=tiny("bert"), epochs=1.0)
    assert run.data.tags["teacher"] == tiny("bert")


def test_a_teacher_with_segments_teaches_a_student_without(world, student, tiny, tmp_path):
    """A DistilBERT with the BERT's tokenizer: the same tokens, but no segment ids."""
    shutil.copytree(tiny("distilbert"), tmp_path / "student")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{tiny('bert')}/{file}", tmp_path / "student")
    run = student(teacher=world[1], model_checkpoint=str(tmp_path / "student"), epochs=1.0)
    assert run.data.tags["family"] == "distilbert" and run.info.status == "FINISHED"


@pytest.fixture(scope="module")
def other(tiny, tmp_path_factory):
    """A RoBERTa that reads 64 tokens at once, of a tokenizer of its own; its logits differ from token to token."""
    folder = tmp_path_factory.mktemp("other")
    config = transformers.AutoConfig.from_pretrained(tiny("roberta"))
    config.max_position_embeddings = 66
    torch.manual_seed(0)
    model = transformers.RobertaForQuestionAnswering(config)
    model.qa_outputs.weight.data *= 30
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny("roberta")).save_pretrained(folder)
    return folder


def by_characters(folder, example, offsets):
    """What a teacher says of a whole context, as odds on the tokens at some characters: the sum over its own, one by one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    asked = tokenizer(
        example["question"], example["context"], return_offsets_mapping=True, return_tensors="pt"
    )
    with torch.no_grad():
        out = model(**{name: asked[name] for name in ("input_ids", "attention_mask")})
    logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1).numpy()
    odds = np.zeros((len(offsets), 2))
    odds[0] = 1
    for (begin, end), sequence, row in zip(
        asked["offset_mapping"][0].tolist(), asked.sequence_ids(), logits - logits[0], strict=True
    ):
        if sequence != 1:
            continue
        begin += example["context"][begin] == " "
        (first,) = (i for i, (b, e) in enumerate(offsets) if b <= begin < e)
        (last,) = (i for i, (b, e) in enumerate(offsets) if b <= end - 1 < e)
        odds[first, 0] += np.exp(row[0])
        odds[last, 1] += np.exp(row[1])
    return odds


@pytest.mark.long
def test_a_teacher_with_another_tokenizer(world, student, other, tiny, monkeypatch, tmp_path):
    """Its logits lie on the student's tokens, and a killed run goes on with them to the same weights."""
    seen = {}

    def kept(planned, train, *rest):
        seen["train"] = train
        return original(planned, train, *rest)

    original = distillation.taught
    monkeypatch.setattr(distillation, "taught", kept)
    # In several parts.
    monkeypatch.setattr(distillation, "AT_ONCE", 2)
    whole = student(output="whole", teacher=str(other))
    with monkeypatch.context() as patch:
        killed_at(5, patch)
        with pytest.raises(Killed):
            student(teacher=str(other))
    logits, begin, examples = np.load(tmp_path / "out" / distillation.FILE), 0, seen["train"].examples
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("bert"))
    windows = make_windows(tokenizer, examples, max_length=96, doc_stride=16, segment_ids=True)
    assert len(windows) == len(examples) and len(logits) == windows.lengths.sum()
    for example, offsets in zip(examples, windows.offsets, strict=True):
        rows = logits[begin : begin + len(offsets)].astype(float)
        assert np.allclose(np.exp(rows), by_characters(other, example, offsets.tolist()), rtol=1e-3)
        assert np.exp(rows).std() > 0.1
        begin += len(offsets)
    computed = []
    monkeypatch.setattr(distillation, "_write", lambda *args: computed.append(1))
    gone_on = student(teacher=str(other), resume=True)
    assert not computed and dict(curve(gone_on)) == dict(curve(whole)) and same(gone_on, whole)


@pytest.mark.parametrize("teacher", ["its tokens", "its own tokens"])
def test_the_bar_moves_with_each_batch_that_the_teacher_reads(teacher, world, student, other, monkeypatch):
    """Not only when an example's logits are complete: that may be minutes later."""
    bars, events = [], []

    class Bar(distillation.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            bars.append(self)

        def update(self, n=1):
            events.append("moved")
            return super().update(n)

    def batches(*args):
        for batch in original(*args):
            events.append("read")
            yield batch

    original = distillation.length_sorted_batches
    monkeypatch.setattr(distillation, "length_sorted_batches", batches)
    monkeypatch.setattr(distillation, "tqdm", Bar)
    # Each window is a batch; of its own tokens the teacher has another number of windows than the student.
    monkeypatch.setattr(distillation, "tokens_per_batch", lambda *_: 1)
    own = teacher == "its own tokens"
    student(epochs=1.0, teacher=str(other) if own else world[1], max_length=32, doc_stride=8)
    (bar,) = bars
    assert events == ["read", "moved"] * bar.total and bar.n == bar.total > 3


def test_a_student_with_another_tokenizer_follows_its_teacher(world, tiny, tmp_path):
    """A teacher with segments and virtual tokens, whose answers an MPNet learns without any label."""
    prefix = TECHNIQUES["prefix-tuning"](num_train_epochs=5.0, learning_rate=1e-2)
    teacher = trainings.train(prefix, world[0], tiny("bert"), tmp_path / "teacher", "teachers", seed=5)
    run = trainings.train(
        TECHNIQUES["standard"](num_train_epochs=12.0, learning_rate=3e-3),
        world[0],
        tiny("mpnet"),
        tmp_path / "student",
        tmp_path.name,
        teacher=f"runs:/{teacher.info.run_id}/model",
        distillation_weight=1.0,
        distillation_temperature=1.0,
    )
    losses = [loss for _, loss in curve(run)]
    assert run.data.tags["family"] == "mpnet" and losses[-1] < 0.25 * losses[0]


@pytest.mark.long
@pytest.mark.parametrize("task", ["classification", "multi-label-classification"])
def test_a_classifier_has_a_teacher_with_another_tokenizer_and_order_of_labels(task, tiny, tmp_path):
    with stores.in_force(tmp_path):
        several = task != "classification"
        rows = [
            row | {"label": ("sad", "glad")[row["label"]] + ("|long" if several and i % 3 == 0 else "")}
            for i, row in enumerate(texts.make_texts(60))
        ]
        file = texts.write_csv(tmp_path / "texts.csv", rows)
        labelled_texts.prepare_files(file, None, tmp_path / "data", multi_label=several)
        common = dict(task=task, data_dir=str(tmp_path / "data"), output_dir=str(tmp_path / "out"))
        common |= dict(experiment_name="texts", max_length=64, batch_size=8)
        technique = TECHNIQUES["standard"](num_train_epochs=3.0, learning_rate=3e-3)
        teacher = fit.fit(technique, RunArgs(model_checkpoint=tiny("roberta"), **common))
        run = mlflow.get_run(
            fit.fit(
                TECHNIQUES["lora"](num_train_epochs=1.0),
                RunArgs(model_checkpoint=tiny("bert"), teacher=f"runs:/{teacher}/model", **common),
            )
        )
        assert run.info.status == "FINISHED" and run.data.tags["family"] == "bert"
