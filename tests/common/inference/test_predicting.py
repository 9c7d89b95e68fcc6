"""A file asked of a model: the run's own figures, order, interruptions."""

import csv
import io
import json
import math
import sys
from contextlib import nullcontext

import pytest

from common.data.squad_json import read_squad_json
from common.errors import UserError
from common.inference import blocks, models, predicting
from common.inference.outputs import Outputs
from common.inference.source import Source, source_of
from common.scoring.prediction_files import read_no_answer_probabilities, read_predictions
from common.scoring.squad import squad_scores
from tests.support import trained


@pytest.fixture(scope="module")
def model(run):
    return models.load(f"runs:/{run[0].info.run_id}/model")


def all_outputs(folder):
    return Outputs(*(folder / name for name in ("p.json", "n.json", "o.json", "p.csv")))


@pytest.fixture(scope="module")
def whole(run, model, tmp_path_factory):
    """(data file, folder of the outputs) of an uninterrupted run."""
    folder, data = tmp_path_factory.mktemp("whole"), run[1] / "test.json"
    done = predicting.predict(model, source_of([str(data)], model.asked), all_outputs(folder))
    assert done.examples == 8 and len(done.files) == 4
    return data, folder


def test_the_scores_are_the_runs_own_to_the_digit(run, whole):
    data, folder = whole
    squad = read_squad_json(data)
    scores = squad_scores(read_predictions(folder / "p.json"), squad.examples, squad.version)
    logged = run[0].data.metrics
    assert scores["f1"] == logged["test_f1"] and scores["exact_match"] == logged["test_exact_match"]
    assert len(scores) > 3


def test_the_order_is_the_files(whole):
    data, folder = whole
    ids = [example["id"] for example in read_squad_json(data).examples]
    assert list(json.loads((folder / "p.json").read_text())) == ids
    assert list(json.loads((folder / "n.json").read_text())) == ids
    assert [row["id"] for row in csv.DictReader(io.StringIO((folder / "p.csv").read_text()))] == ids


def test_candidates_begin_with_the_answer_and_their_odds_agree(run, whole, model):
    data, folder = whole
    given, n_best = (json.loads((folder / name).read_text()) for name in ("p.json", "n.json"))
    odds = read_no_answer_probabilities(folder / "o.json")
    rows = read_squad_json(data).examples
    contexts = {e["id"]: e["context"] for e in rows}
    for id_, candidates in n_best.items():
        assert candidates[0]["text"] == given[id_]
        for each in candidates:
            assert each["text"] == (contexts[id_][each["start"] : each["end"]] if each["start"] >= 0 else "")
    # "No answer" is given by force: its probability stands beside the best answer's.
    asked = [{name: row[name] for name in ("question", "context")} for row in rows]
    forced = model.predict(asked, top_k=20, null_threshold=-1e9)
    for row, nothing in zip(rows, forced.to_dict("records"), strict=True):
        best = nothing["alternatives"][0]["score"]
        assert nothing["answer"] == "" and odds[row["id"]] == pytest.approx(
            nothing["score"] / (nothing["score"] + best), rel=1e-4
        )
    served = model.predict([{"question": "Who?", "context": "Marie Curie."}], null_odds=True).iloc[0]
    assert math.isfinite(served["null_odds"])


def test_odds_score_as_the_predictions_do(whole):
    """A file of differences of logits would turn answers into "no answer" at the default threshold of 1."""
    data, folder = whole
    squad = read_squad_json(data)
    given = read_predictions(folder / "p.json")
    with_odds = squad_scores(given, squad.examples, "v2.0", read_no_answer_probabilities(folder / "o.json"))
    assert with_odds["f1"] == squad_scores(given, squad.examples, "v2.0")["f1"]
    # Both are sums of the same scores, in different orders.
    assert with_odds["best_f1"] >= with_odds["f1"] - 1e-9


def by(answering):
    """`answering`, a function of (model, parameters, waiting blocks), as `predict` takes it."""
    return lambda model, asked: nullcontext(lambda waiting: answering(model, asked, waiting))


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_an_interrupted_run_goes_on_to_the_same_bytes(finished, model, whole, tmp_path, monkeypatch):
    data, _ = whole
    monkeypatch.setattr(blocks.blocks, "__defaults__", (2, blocks.CHARACTERS))
    source, outputs, asked = source_of([str(data)], model.asked), all_outputs(tmp_path / "resumed"), []
    # Blocks of another size are other products, whose last digits differ on some processors.
    expected = tmp_path / "at_once"
    for folder in (expected, tmp_path / "resumed"):
        folder.mkdir()
    predicting.predict(model, source, all_outputs(expected))

    def killed(model, parameters, waiting):
        for number, block in waiting:
            if number == finished:
                raise KeyboardInterrupt
            yield number, block, predicting.answer(model, parameters, block)

    with pytest.raises(KeyboardInterrupt):
        predicting.predict(model, source, outputs, backends=by(killed))
    assert not outputs.predictions.exists()

    def counted(model, parameters, waiting):
        for number, block in waiting:
            asked.append(number)
            yield number, block, predicting.answer(model, parameters, block)

    predicting.predict(model, source, outputs, resume=True, backends=by(counted))
    assert asked == list(range(finished, 4))
    for file in expected.iterdir():
        assert (tmp_path / "resumed" / file.name).read_bytes() == file.read_bytes()
    assert sorted(file.name for file in (tmp_path / "resumed").iterdir()) == sorted(
        file.name for file in expected.iterdir()
    )


def _left(model, source, outputs, **parameters):
    def killed(model, asked, waiting):
        number, block = next(waiting)
        yield number, block, predicting.answer(model, asked, block)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predicting.predict(model, source, outputs, parameters=parameters, backends=by(killed))


def test_the_journal_belongs_to_its_model_its_parameters_and_its_data(
    model, whole, tmp_path, tiny, monkeypatch
):
    data, _ = whole
    monkeypatch.setattr(blocks.blocks, "__defaults__", (2, blocks.CHARACTERS))
    source, outputs = source_of([str(data)], model.asked), Outputs(tmp_path / "p.json")
    _left(model, source, outputs)
    with pytest.raises(UserError, match="predicted with another parameters"):
        predicting.predict(model, source, outputs, parameters={"null_threshold": 3.0}, resume=True)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    bundle, base, *_ = trained.save(other_folder, tiny, seed=9)
    base.rename(bundle / "base")
    with pytest.raises(UserError, match="predicted with another model"):
        predicting.predict(models.load(str(bundle)), source, outputs, resume=True)
    examples = read_squad_json(data).examples
    changed = Source("data", lambda: iter([examples[0] | {"question": "Which one?"}, *examples[1:]]))
    with pytest.raises(UserError, match="block 0 .* was predicted for other examples"):
        predicting.predict(model, changed, outputs, resume=True)
    with pytest.raises(UserError, match="more blocks than the data makes"):
        predicting.predict(model, Source("data", lambda: iter([]), again=False), outputs, resume=True)
    # What was not asked yet may change: the result is that of the data as it is.
    longer = Source("data", lambda: iter([*examples, examples[0] | {"id": "new"}]))
    assert predicting.predict(model, longer, outputs, resume=True).examples == 9


def test_examples_are_read_as_they_are_asked(model, tmp_path, monkeypatch):
    """Memory holds a block and the one behind it, however long the stream is."""
    monkeypatch.setattr(blocks.blocks, "__defaults__", (4, blocks.CHARACTERS))
    read = []

    def rows():
        for i in range(400):
            read.append(i)
            yield {"id": str(i), "question": "Who?", "context": "Marie Curie."}

    def watched(model, asked, waiting):
        for number, block in waiting:
            assert len(read) <= 4 * (number + 1) + 1
            yield number, block, [{"id": e["id"], "answer": "", "score": 1.0} for e in block]

    done = predicting.predict(
        model, Source("rows", rows, again=False), Outputs(tmp_path / "p.json"), backends=by(watched)
    )
    assert done.examples == 400 and len(json.loads((tmp_path / "p.json").read_text())) == 400


def test_one_process_at_a_time_writes_predictions(model, whole, tmp_path):
    outputs = Outputs(tmp_path / "p.json")
    with blocks.Journal(tmp_path / ".p.json.blocks", {}, False):
        with pytest.raises(UserError, match="another process is writing"):
            predicting.predict(model, source_of([str(whole[0])], model.asked), outputs)


def test_lines_of_the_standard_input(model, whole, tmp_path, monkeypatch):
    examples = read_squad_json(whole[0]).examples
    lines = [json.dumps({name: e[name] for name in ("id", "question", "context")}) for e in examples]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n\n"))
    outputs = all_outputs(tmp_path)
    predicting.predict(model, source_of(["-"], model.asked), outputs)
    for file in whole[1].iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2.*JSON"),
        ('{"question": "Who?"}', "line 2"),
        ('{"question": "Who?", "context": "x", "id": "a"}', "a"),
    ],
)
def test_a_faulty_line_is_named(line, reason, model, tmp_path, monkeypatch):
    text = '{"question": "Who?", "context": "Marie Curie.", "id": "a"}\n' + line
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    with pytest.raises(UserError, match=reason):
        predicting.predict(model, source_of(["-"], model.asked), Outputs(tmp_path / "p.json"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_tables_give_the_same_predictions(name, model, whole, tmp_path):
    import pandas as pd

    rows = read_squad_json(whole[0]).examples
    frame = pd.DataFrame([{"qid": e["id"], "q": e["question"], "context": e["context"]} for e in rows])
    write = {"csv": frame.to_csv, "jsonl": frame.to_json, "parquet": frame.to_parquet}[name.partition(".")[2]]
    write(tmp_path / name, **({"orient": "records", "lines": True} if "json" in name else {"index": False}))
    source = source_of([str(tmp_path / name)], model.asked, columns={"id": "qid", "question": "q"})
    predicting.predict(model, source, Outputs(tmp_path / "p.json"))
    assert (tmp_path / "p.json").read_bytes() == (whole[1] / "p.json").read_bytes()


def test_what_a_model_refuses_is_named_by_its_id(model, tmp_path):
    rows = [
        {"id": "a", "question": "Who?", "context": "Marie."},
        {"id": "b", "question": " ", "context": "Pierre."},
    ]
    with pytest.raises(UserError, match="'b': question is empty"):
        predicting.answer(model, {}, rows)

    class Writing:
        asked = model.asked

        def predict(self, rows, **parameters):
            raise UserError("The question in row 1 has 90 tokens; at most 40 fit.")

    with pytest.raises(UserError, match="^The question in 'b' has 90 tokens; at most 40 fit.$"):
        predicting.answer(Writing(), {}, rows)


def test_faults_of_the_outputs_and_the_data_are_found_first(model, tmp_path, whole):
    file = tmp_path / "p.json"
    with pytest.raises(UserError, match="same file"):
        Outputs(file, n_best=file)
    with pytest.raises(UserError, match="is a folder"):
        Outputs(tmp_path)
    with pytest.raises(UserError, match="holds no examples"):
        predicting.predict(model, Source("data", lambda: iter([])), Outputs(file))
    with pytest.raises(UserError, match="read alone"):
        source_of(["-", "x"], model.asked)
    (tmp_path / "texts.csv").write_text("text\nfine\n")
    with pytest.raises(UserError, match="has no 'text_pair', which the model is asked with"):
        source_of([str(tmp_path / "texts.csv")], ("text", "text_pair")).count()


def test_nothing_is_started_for_a_request_that_is_refused(model, tmp_path):
    def started(model, asked):
        raise AssertionError("a cluster was started")

    rows = Source("rows", lambda: iter([{"id": "a", "question": "?", "context": "x"}]))
    with pytest.raises(UserError, match="--top: .* does not take it"):
        predicting.predict(model, rows, Outputs(tmp_path / "p.json"), parameters={"top": 1}, backends=started)
    with pytest.raises(UserError, match="holds no examples"):
        predicting.predict(model, Source("x", lambda: iter([])), Outputs(tmp_path / "p"), backends=started)


def test_a_classifier_gives_labels(tmp_path, tiny):
    bundle, base, *_ = trained.save_classifier(tmp_path, tiny)
    base.rename(bundle / "base")
    model = models.load(str(bundle))
    rows = [{"id": str(i), "text": text} for i, text in enumerate(["The heart.", "Two plates, drifting."])]
    outputs = Outputs(tmp_path / "p.json", n_best=tmp_path / "n.json", csv=tmp_path / "p.csv")
    predicting.predict(model, Source("rows", lambda: iter(rows)), outputs)
    given, n_best = (json.loads((tmp_path / name).read_text()) for name in ("p.json", "n.json"))
    assert [given[row["id"]] for row in rows] == list(
        model.predict([{"text": row["text"]} for row in rows])["label"]
    )
    assert all(len(each) == 2 and set(each[0]) == {"text", "probability"} for each in n_best.values())
    assert (tmp_path / "p.csv").read_text().startswith("id,label,score\n")
    with pytest.raises(UserError, match="--null_odds: .* does not say"):
        predicting.predict(
            model, Source("rows", lambda: iter(rows)), Outputs(tmp_path / "q.json", null_odds=tmp_path / "o")
        )
