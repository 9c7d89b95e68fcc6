import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers import training_features
from common.data.squad_json import read_squad_json
from common.graphemes import cuts, widened
from common.models import base
from common.models.bundles import completed
from common.models.families import FAMILIES
from common.paths import SAMPLE
from common.tasks.batching import Collator
from common.tasks.extractive_qa.windows import NO_CONTEXT, make_windows, shorten
from tests.support import odd
from tests.support.tokenizers import make_tokenizer


@pytest.fixture(
    scope="module",
    params=sorted(name for name, family in FAMILIES.items() if "QuestionAnswering" in family.heads),
)
def tokenizer(request):
    return completed(make_tokenizer(request.param))


def windows_of(tokenizer, examples, max_length=48, doc_stride=8, segment_ids=True):
    return make_windows(
        tokenizer, examples, max_length=max_length, doc_stride=doc_stride, segment_ids=segment_ids
    )


def test_every_label_cuts_out_its_answer(tokenizer, examples):
    windows = windows_of(tokenizer, examples, max_length=72)
    held = set()
    for i, example in enumerate(windows.example_index):
        start, end = windows.start_positions[i], windows.end_positions[i]
        if start:
            text = examples[example]["context"][windows.offsets[i][start, 0] : windows.offsets[i][end, 1]]
            assert text == examples[example]["answers"]["text"][0]
            held.add(int(example))
        else:
            assert end == 0
    assert held == {i for i, example in enumerate(examples) if example["answers"]["text"]}


def test_question_and_special_tokens_have_no_offsets(tokenizer, examples):
    """Without the mask, a span over the question's tokens would be cut out of the context by the question's offsets."""
    windows = windows_of(tokenizer, examples)
    for ids, offsets in zip(windows.input_ids, windows.offsets, strict=True):
        context = np.flatnonzero(offsets[:, 1] != NO_CONTEXT)
        separators = np.flatnonzero(ids == (tokenizer.sep_token_id or tokenizer.eos_token_id))
        assert context[0] > separators[0]
        assert not np.isin(ids[context], tokenizer.all_special_ids).any()
        assert (np.diff(context) == 1).all()


def test_windows_cover_the_context_and_overlap_by_doc_stride(tokenizer):
    context = " ".join(f"Iceland lies on ridge {n}." for n in range(40))
    example = {"question": "Where?", "context": context, "answers": None}
    windows = windows_of(tokenizer, [example], max_length=32, doc_stride=8)
    assert len(windows) > 3 and max(windows.lengths) <= 32
    covered = np.zeros(len(context), dtype=bool)
    previous = None
    for offsets in windows.offsets:
        inside = offsets[offsets[:, 1] != NO_CONTEXT]
        for start, end in inside:
            covered[start:end] = True
        if previous is not None:
            assert (previous[-8:] == inside[:8]).all()
        previous = inside
    assert all(covered[i] or context[i].isspace() for i in range(len(context)))


def test_a_question_longer_than_the_window_leaves_room_for_the_context(tokenizer):
    example = {"question": "why " * 4000, "context": "Iceland lies on a ridge.", "answers": None}
    windows = windows_of(tokenizer, [example], max_length=64)
    assert max(windows.lengths) <= 64
    assert all((offsets[:, 1] != NO_CONTEXT).any() for offsets in windows.offsets)


@settings(max_examples=60, deadline=None)
@given(context=st.text(min_size=1, max_size=200).filter(str.strip), data=st.data())
def test_labels_hold_the_answer_for_any_text(context, data):
    tokenizer = make_cached("bert")
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    answer = context[start:end]
    example = {
        "question": "What?",
        "context": context,
        "answers": {"text": [answer], "answer_start": [start]},
    }
    windows = windows_of(tokenizer, [example], max_length=40)
    for i in range(len(windows)):
        first, last = windows.start_positions[i], windows.end_positions[i]
        if first:
            offsets = windows.offsets[i]
            assert first <= last
            assert offsets[first, 0] < end and offsets[first, 1] > start
            assert offsets[last, 0] < end and offsets[last, 1] > start
            before, after = cuts(context) or (np.arange(len(context) + 1),) * 2
            assert first == 0 or offsets[first - 1, 1] <= after[start]
            assert last == len(offsets) - 2 or offsets[last + 1, 0] >= before[end]


@pytest.fixture(scope="module", params=odd.KINDS)
def odd_tokenizer(request):
    return odd.tokenizer(request.param)


@settings(max_examples=40)
@given(parts=odd.texts())
def test_from_any_token_to_any_the_text_is_whole(odd_tokenizer, parts):
    context = "".join(parts)
    example = {"question": "What?", "context": context, "answers": None}
    for offsets in windows_of(odd_tokenizer, [example], max_length=24).offsets:
        real = offsets[(offsets[:, 1] != NO_CONTEXT) & (offsets[:, 0] < offsets[:, 1])]
        assert (widened(real, cuts(context)) == real).all()


@settings(max_examples=60)
@given(parts=odd.texts(), data=st.data())
def test_a_gold_of_whole_characters_comes_back(odd_tokenizer, parts, data):
    """Except for characters at its ends that no token has; with further characters only where its tokens hold them."""
    first = data.draw(st.integers(0, len(parts) - 1))
    last = data.draw(st.integers(first, len(parts) - 1))
    context, start = "".join(parts), len("".join(parts[:first]))
    gold = "".join(parts[first : last + 1])
    example = {
        "question": "What?",
        "context": context,
        "answers": {"text": [gold], "answer_start": [start]},
    }
    windows = windows_of(odd_tokenizer, [example], max_length=200)
    raw = odd_tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    tokens = [(e - len(context[b:e].lstrip()), e) for b, e in raw]
    overlapping = [(b, e) for b, e in tokens if b < e and b < start + len(gold) and e > start]
    if not overlapping:
        assert not windows.end_positions.any()
        return
    (first,), (last,) = windows.start_positions, windows.end_positions
    begin, end = windows.offsets[0][first, 0], windows.offsets[0][last, 1]
    before, after = cuts(context) or (np.arange(len(context) + 1),) * 2
    assert (begin, end) == (before[min(b for b, _ in overlapping)], after[max(e for _, e in overlapping)])


@pytest.mark.parametrize(
    ("context", "gold", "answer"),
    [
        ("​The heart pumps", "​The heart", "The heart"),
        ("The heart pumps", "The", "The"),
        ("The heart pumps bloó", "bloó", "bloó"),
        ("The heart pumps bloód​", "bloód​", "bloód"),
        ("The heart ", "heart ", "heart"),
    ],
)
@pytest.mark.parametrize("max_length", [16, 200])
def test_a_gold_whose_ends_no_token_has_is_trained(context, gold, answer, max_length):
    """A BERT drops accents, zero-width and control characters: such golds were labelled "no answer" at the context's ends."""
    example = {
        "question": "What?",
        "context": context,
        "answers": {"text": [gold], "answer_start": [context.index(gold)]},
    }
    windows = windows_of(make_cached("bert"), [example], max_length=max_length, doc_stride=6)
    held = np.flatnonzero(windows.end_positions)
    assert len(held)
    for i in held:
        offsets = windows.offsets[i]
        begin, end = offsets[windows.start_positions[i], 0], offsets[windows.end_positions[i], 1]
        assert context[begin:end] == answer


def test_a_window_without_all_of_a_golds_tokens_holds_no_answer():
    context = "blood pumps the heart " * 6
    gold = context[6:110]
    example = {"question": "What?", "context": context, "answers": {"text": [gold], "answer_start": [6]}}
    windows = windows_of(make_cached("bert"), [example], max_length=16, doc_stride=4)
    assert len(windows) > 2 and not windows.end_positions.any()


def test_plain_golds_have_the_labels_of_the_documentation():
    """Hugging Face's, on the packaged sample: no window differs."""
    _, tokenizer = base.load_base(base.resolve_checkpoint("embedded"))
    examples = list(read_squad_json(SAMPLE / "test-v2.0.json").examples)
    cut = {"max_length": 128, "doc_stride": 32}
    windows = windows_of(tokenizer, examples, **cut)
    columns = {name: [example[name] for example in examples] for name in ("question", "context", "answers")}
    theirs = training_features(tokenizer, columns, cut["max_length"], cut["doc_stride"])
    assert windows.start_positions.tolist() == list(theirs["start_positions"])
    assert windows.end_positions.tolist() == list(theirs["end_positions"])
    assert np.count_nonzero(windows.end_positions) > 100


_CACHE = {}


def make_cached(model_type):
    return _CACHE.setdefault(model_type, make_tokenizer(model_type))


def test_collator_pads_to_the_longest_of_the_batch(examples):
    tokenizer = make_cached("bert")
    windows = windows_of(tokenizer, examples)
    batch = Collator(tokenizer.pad_token_id)([windows[0], windows[2]])
    assert batch["input_ids"].shape[1] == max(windows.lengths[[0, 2]])
    for row, i in enumerate((0, 2)):
        n = windows.lengths[i]
        assert (batch["input_ids"][row, :n].numpy() == windows.input_ids[i]).all()
        assert (batch["input_ids"][row, n:] == tokenizer.pad_token_id).all()
        assert batch["attention_mask"][row].sum() == n
        assert (batch["token_type_ids"][row, :n].numpy() == windows.token_type_ids[i]).all()
    assert batch["token_type_ids"].max() == 1


def test_shorten_keeps_whole_tokens():
    tokenizer = make_cached("bert")
    text = "two plates drift apart " * 50
    short = shorten(tokenizer, text, 10)
    assert text.startswith(short)
    assert len(tokenizer(short, add_special_tokens=False)["input_ids"]) == 10
