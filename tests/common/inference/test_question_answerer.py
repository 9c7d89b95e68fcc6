"""The callable that answers as transformers' question-answering pipeline was asked."""

import json

import mlflow
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from common.api import QuestionAnswerer, load
from common.errors import UserError
from common.inference import predicting
from common.inference.outputs import Outputs
from common.inference.source import source_of
from common.models.families import uses_segment_ids
from common.tasks.extractive_qa.windows import NO_CONTEXT, make_windows
from tests.support import old_pipeline, stores, tampering, trained
from tests.support.questions import EXAMPLES

ROWS = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]
LONG = {"question": "Where does Iceland lie?", "context": " ".join(row["context"] for row in ROWS[::2] * 3)}
"""Several windows of the models below."""


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with test.json, id of a run of v2.0 data, id of one of v1.1 data) with their store in force."""
    folder = tmp_path_factory.mktemp("pipeline")
    with stores.in_force(folder):
        for version in ("v1.1", "v2.0"):
            (folder / version).mkdir()
            record = trained.prepare_data(folder / version, version)
            id_ = trained.log_run(folder / version, tiny, record, EXAMPLES[:7], experiment="pipeline")
            mlflow.register_model(f"runs:/{id_}/model", f"pipeline-{version}")
        yield folder


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    """A folder as save_pretrained writes it, with a head that is no random draw near zero."""
    folder = tmp_path_factory.mktemp("plain")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tiny("bert"))
    torch.manual_seed(3)
    with torch.no_grad():
        model.qa_outputs.weight.normal_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ask(plain):
    return QuestionAnswerer.from_pretrained(plain)


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
def test_a_registered_model_answers_as_predict_does(world, tmp_path, version):
    uri = f"models:/pipeline-{version}/1"
    asked = [*ROWS, LONG]
    lines = "".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(asked))
    (tmp_path / "asked.jsonl").write_text(lines)
    model = load(uri)
    source = source_of([str(tmp_path / "asked.jsonl")], model.asked)
    predicting.predict(model, source, Outputs(tmp_path / "answers.json"))
    expected = list(json.loads((tmp_path / "answers.json").read_text()).values())
    found = QuestionAnswerer.from_pretrained(uri)(asked)
    assert [each["answer"] for each in found] == expected and len(set(expected)) > 3
    for each, row in zip(found, asked, strict=True):
        assert list(each) == ["score", "start", "end", "answer"] and 0 < each["score"] <= 1
        assert row["context"][each["start"] : each["end"]] == each["answer"]


def test_a_run_is_named_by_its_id_and_a_changed_model_is_refused(world, tiny):
    (run_id,) = (v.run_id for v in mlflow.MlflowClient().search_model_versions("name = 'pipeline-v1.1'"))
    by_id, by_uri = map(QuestionAnswerer.from_pretrained, (run_id, f"runs:/{run_id}/model"))
    assert by_id(ROWS[0]) == by_uri(ROWS[0])
    other = trained.log_run(
        world / "v1.1", tiny, _record(world), EXAMPLES[:7], experiment="changed", technique="standard", seed=4
    )
    logged = mlflow.MlflowClient().search_logged_models([mlflow.get_run(other).info.experiment_id])[0]
    tampering.changed(next(tampering.folder_of(f"models:/{logged.model_id}").rglob("*.safetensors")))
    with pytest.raises(UserError, match="is not loaded: its file .*safetensors was changed"):
        QuestionAnswerer.from_pretrained(other)


def _record(world):
    from common.data import prepared

    return prepared.load(world / "v1.1" / "data")[1]


def test_scores_and_order_are_the_old_ones_where_a_context_is_one_window(plain, ask):
    """Of spans, not of the old pipeline's sums over spans with the same text."""
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(plain).eval()
    tokenizer = AutoTokenizer.from_pretrained(plain)
    segments = uses_segment_ids(model.config)
    for row in ROWS:
        windows = make_windows(
            tokenizer, [{"id": "0", **row}], max_length=128, doc_stride=32, segment_ids=segments
        )
        inputs = {k: torch.from_numpy(v)[None] for k, v in windows[0].items() if k != "labels"}
        with torch.no_grad():
            out = model(**inputs)
        offsets = windows.offsets[0]
        spans, null = old_pipeline.ranked(
            out.start_logits[0].double().numpy(),
            out.end_logits[0].double().numpy(),
            offsets[:, 1] != NO_CONTEXT,
            max_answer_len=4,
        )
        expected = [(int(offsets[a, 0]), int(offsets[b, 1])) for a, b, _ in spans[:5]]
        found = ask(row, top_k=5, max_answer_len=4)
        assert [(each["start"], each["end"]) for each in found] == expected
        assert [each["score"] for each in found] == pytest.approx([s for *_, s in spans[:5]], rel=1e-4)
        among = ask(row, top_k=100, max_answer_len=4, handle_impossible_answer=True)
        (nothing,) = [each for each in among if not each["answer"]]
        assert nothing["score"] == pytest.approx(null, rel=1e-4) and nothing["start"] == nothing["end"] == 0


def test_scores_of_a_long_context_are_one_distribution(ask):
    """A span of one token is a first and a last token: no first token may count more than once for each window."""
    found = ask(LONG, top_k=10_000, max_answer_len=500, max_seq_len=64, doc_stride=8)
    scores = [each["score"] for each in found]
    assert len(found) > 20 and scores == sorted(scores, reverse=True) and sum(scores) <= 1
    assert len({(each["start"], each["end"]) for each in found}) == len(found)


def test_what_several_windows_hold_counts_once(plain, ask):
    """One certain answer where windows overlap, and one certain "no answer" of all windows, have a score of about 1."""
    short = {"max_seq_len": 32, "doc_stride": 8}
    tokenizer = AutoTokenizer.from_pretrained(plain)
    asked = LONG | {"context": " ".join(dict.fromkeys(row["context"] for row in ROWS))}
    pieces = tokenizer(asked["question"], asked["context"], return_offsets_mapping=True, max_length=32, stride=8,
                       truncation="only_second", return_overflowing_tokens=True)  # fmt: skip
    # The ids of a piece of text that lies in two windows, and nowhere else in the context.
    places = {}
    for window, (ids, offsets) in enumerate(zip(pieces.input_ids, pieces.offset_mapping, strict=True)):
        for token, (id_, offset, part) in enumerate(
            zip(ids, offsets, pieces.sequence_ids(window), strict=True)
        ):
            if part == 1:
                places.setdefault(id_, []).append((window, token, tuple(offset)))
    found = ((id_, at) for id_, at in places.items() if len(at) == 2 and at[0][2] == at[1][2])
    wanted, ((_, _, expected), _) = next(found)
    held = []

    def certain(answer):
        def change(_, args, given, out):
            for logits in (out.start_logits, out.end_logits):
                logits.fill_(-30.0)
                for row, ids in zip(logits, given["input_ids"], strict=True):
                    at = (ids == wanted).nonzero()[:, 0].tolist() if answer else []
                    row[at or 0] = 30.0
                    held.append(len(at))
            return out

        return change

    network = ask._answerer.model
    for answer in (True, False):
        held.clear()
        handle = network.register_forward_hook(certain(answer), with_kwargs=True)
        try:
            given = ask(asked, handle_impossible_answer=True, **short)
        finally:
            handle.remove()
        assert given["score"] == pytest.approx(1, abs=1e-4) and given["score"] <= 1
        assert (given["start"], given["end"]) == (expected if answer else (0, 0))
        # Two windows hold the answer, and others do not; each counts twice, for first and last tokens.
        assert sum(held) == (4 if answer else 0) and held.count(0) >= 2


@pytest.mark.parametrize("batch_size", [None, 1, 3, 64])
def test_the_size_of_batches_changes_no_answer(ask, batch_size):
    alone = [ask(row, max_seq_len=64) for row in (*ROWS, LONG)]
    together = ask([*ROWS, LONG], max_seq_len=64, batch_size=batch_size)
    for one, other in zip(alone, together, strict=True):
        assert one["answer"] == other["answer"] and one["start"] == other["start"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-3)


def test_a_batch_has_as_many_windows_as_asked_for(ask, monkeypatch):
    sizes = []
    network = ask._answerer.model
    handle = network.register_forward_pre_hook(
        lambda _, args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        ask([*ROWS, LONG], max_seq_len=64, batch_size=3)
    finally:
        handle.remove()
    assert sizes[:-1] == [3] * (len(sizes) - 1) and 1 <= sizes[-1] <= 3 and sum(sizes) > len(ROWS) + 1


def test_every_form_of_a_question_gets_the_same_answer(ask):
    row, other = ROWS[0], ROWS[4]
    one, two = ask(row), ask(other)
    assert ask(**row) == ask(row["question"], row["context"]) == one
    assert ask([row]) == ask(question=[row["question"]], context=[row["context"]]) == [one]
    both = ask([row, other])
    assert [each["answer"] for each in both] == [one["answer"], two["answer"]] and type(both) is list
    assert ask(row, other) == ask((row, other)) == both
    stacked = {name: [row[name], other[name]] for name in row}
    assert ask(**stacked) == both
    stream = ask(iter([row, other]))
    assert not isinstance(stream, list) and list(stream) == both
    same = ask(question=stacked["question"], context=row["context"])
    assert [each["answer"] for each in same] == [
        ask(question=q, context=row["context"])["answer"] for q in stacked["question"]
    ]
    many = ask(question=row["question"], context=stacked["context"])
    assert [each["answer"] for each in many] == [
        ask(question=row["question"], context=c)["answer"] for c in stacked["context"]
    ]
    assert ask([]) == [] and ask(question=[], context=[]) == []


def test_with_top_k_there_is_a_list_for_each_question(ask):
    three = ask(ROWS[0], top_k=3)
    assert [type(each) for each in three] == [dict] * 3 and three[0] == ask(ROWS[0])
    assert three[0]["score"] >= three[1]["score"] >= three[2]["score"]
    assert [len(each) for each in ask(ROWS[:2], top_k=3)] == [3, 3]
    # A text of one word, which is one token, has one span.
    (only,) = ask(question="What?", context="heart", top_k=50)
    assert (only["start"], only["end"], only["answer"]) == (0, 5, "heart")


def test_a_stream_is_answered_while_it_is_read(ask, monkeypatch):
    from common.inference import question_answerer

    monkeypatch.setattr(question_answerer, "BLOCK", 2)
    read = []

    def rows():
        for number, row in enumerate(ROWS):
            read.append(number)
            yield row

    answers = ask(rows())
    assert read == []
    next(answers)
    assert read == [0, 1]
    assert len(list(answers)) == len(ROWS) - 1


def test_arguments_are_in_tokens_and_have_an_effect(ask):
    for row in ROWS:
        best = ask(row, max_answer_len=1)["answer"]
        assert " " not in best
    long = "What does the heart pump " * 10
    cut = ask(question=long, context=ROWS[0]["context"], max_question_len=5)
    assert cut == ask(question="What does the heart pump", context=ROWS[0]["context"])
    assert cut["score"] != ask(question=long, context=ROWS[0]["context"])["score"]
    wide, narrow = ask(LONG), ask(LONG, max_seq_len=32, doc_stride=4)
    assert wide["score"] != narrow["score"]


def test_whether_there_may_be_no_answer(world, ask, monkeypatch):
    """A model that was trained with questions without an answer has a threshold; others have none."""
    trained_for_it = QuestionAnswerer.from_pretrained("models:/pipeline-v2.0/1")
    always = trained_for_it([*ROWS, LONG], handle_impossible_answer=False)
    assert all(each["answer"] for each in always)
    assert all(each["answer"] for each in ask(ROWS))
    # A threshold of its own decides, whatever the scores are.
    settings = trained_for_it._answerer.info.settings
    for threshold, answered in ((1e9, True), (-1e9, False)):
        monkeypatch.setitem(settings, "null_threshold", threshold)
        assert [bool(each["answer"]) for each in trained_for_it([*ROWS, LONG])] == [answered] * 9


def test_without_a_threshold_of_its_own_the_likelier_one_is_given(ask):
    """The null token's logits are moved, so that "no answer" is the likelier one, or is not."""
    shift = {}

    def moved(_, args, out):
        for logits in (out.start_logits, out.end_logits):
            logits[:, 0] += shift["by"]
        return out

    handle = ask._answerer.model.register_forward_hook(moved)
    try:
        for shift["by"], given in ((20.0, False), (-20.0, True)):
            for row in (*ROWS, LONG):
                ranked = ask(row, top_k=10_000, handle_impossible_answer=True)
                (nothing,) = [each for each in ranked if not each["answer"]]
                assert (ranked[0] != nothing) == given and bool(ranked[0]["answer"]) == given
                assert given == (nothing["score"] < ask(row)["score"])
    finally:
        handle.remove()


def test_answers_reach_to_the_ends_of_words(plain, ask):
    tokenizer = AutoTokenizer.from_pretrained(plain)
    context = "unbelievablyheart pumps bloodstream, through-body."
    pieces = tokenizer(context, add_special_tokens=False)
    assert len(pieces.input_ids) > len(set(pieces.word_ids()))
    found = ask(question="What?", context=context, top_k=20, max_answer_len=1, align_to_words=True)
    words = {pieces.word_to_chars(word) for word in set(pieces.word_ids())}
    assert {(each["start"], each["end"]) for each in found} <= {(w.start, w.end) for w in words}
    apart = ask(question="What?", context=context, top_k=20, max_answer_len=1)
    assert {(each["start"], each["end"]) for each in apart} - {(w.start, w.end) for w in words}
    # The pieces of a word are one answer, whose score is their sum.
    assert sum(each["score"] for each in found) == pytest.approx(sum(each["score"] for each in apart))


def test_defaults_belong_to_the_object(plain, ask):
    short = QuestionAnswerer.from_pretrained(plain, max_answer_len=1, top_k=2)
    assert short(ROWS[0]) == ask(ROWS[0], max_answer_len=1, top_k=2)
    assert short(ROWS[0], top_k=1) == ask(ROWS[0], max_answer_len=1)
    assert "plain" in repr(short)
    with pytest.raises(UserError, match="max_seq_len is 4000"):
        QuestionAnswerer.from_pretrained(plain, max_seq_len=4000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"question": "Who?", "context": "  "}, "Question 0: its context is empty"),
        ({"question": "", "context": "Ada."}, "Question 0: its question is empty"),
        ({"question": "Who?"}, "There is no context: give question= and context="),
        ({"question": ["Who?", "Who?"], "context": ["Ada."]}, "There are 2 questions and 1 contexts"),
        ({"question": ["Who?", 5], "context": "Ada."}, "Question 1: its question is a int, not a text"),
        ({"question": 5, "context": "Ada."}, "question is a int; it is a text or a list"),
        ({"question": "Who?", "context": "Ada \ud800"}, "lone surrogate"),
        (ROWS[0] | {"topk": 2}, "'topk' is not an argument .* did you mean 'top_k'"),
        (ROWS[0] | {"max_answer_length": 2}, "did you mean 'max_answer_len'"),
        (ROWS[0] | {"contexts": "x"}, "did you mean 'context'"),
        (ROWS[0] | {"framework": "pt"}, "'framework' is not an argument .* there are top_k, doc_stride"),
        (ROWS[0] | {"top_k": 0}, "top_k is 0; it is a whole number, 1 or more"),
        (ROWS[0] | {"top_k": True}, "top_k is True"),
        (ROWS[0] | {"max_answer_len": 2.5}, "max_answer_len is 2.5"),
        (ROWS[0] | {"align_to_words": "no"}, "align_to_words is 'no'; it is True or False"),
        (ROWS[0] | {"max_seq_len": 8}, "max_seq_len is 8: choose 16 tokens to 128"),
        (ROWS[0] | {"max_seq_len": 129}, "max_seq_len is 129: choose 16 tokens to 128"),
        (ROWS[0] | {"max_seq_len": 64, "doc_stride": 28}, "doc_stride is 28: .* 64 tokens .* below 28"),
        (ROWS[0] | {"doc_stride": -1}, "doc_stride is -1; it is a whole number, 0 or more"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(ask, given, message):
    with pytest.raises(UserError, match=message) as error:
        ask(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("Who?",), "A str alone cannot be answered"),
        ((5,), "A int alone cannot be answered"),
        (([{"question": "Who?", "context": "Ada."}, "Who?"],), "Question 1 is a str, not a dict"),
        (([{"question": "Who?"}],), "Question 0 has no 'context'"),
    ],
)
def test_what_has_no_form_of_a_question_is_refused(ask, inputs, message):
    with pytest.raises(UserError, match=message):
        ask(*inputs)
    with pytest.raises(UserError, match="both by position and by name"):
        ask(*inputs, question="Who?")


def test_other_models_are_refused_by_name(world, tiny, tmp_path):
    bundle, base, *_ = trained.save_classifier(tmp_path, tiny)
    base.rename(bundle / "base")
    with pytest.raises(UserError, match="does not mark answers in a text"):
        QuestionAnswerer.from_pretrained(bundle)
    with pytest.raises(UserError, match="models:/nothing@champion cannot be loaded"):
        QuestionAnswerer.from_pretrained("models:/nothing@champion")
    with pytest.raises(UserError, match="holds no saved model"):
        QuestionAnswerer.from_pretrained(tmp_path / "missing")
