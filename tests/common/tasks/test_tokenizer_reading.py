"""A tokenizer that does not fit its model or its data is refused before anything is trained; sound ones of every family are not."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.data import labelled_texts
from common.data import questions as data_module
from common.data.squad_json import read_squad_json
from common.errors import UserError
from common.models import base
from common.models.families import FAMILIES
from common.models.tokenizer_fit import check_fit
from common.paths import SAMPLE
from common.tasks import tokenizer_reading
from common.tasks.table import TASKS, head_of
from common.tasks.tokenizer_reading import check_reading
from common.training import fit
from common.training.settings import RunArgs
from tests.conftest import make_config
from tests.scripts.conftest import squad_json
from tests.support import odd, texts
from tests.support.questions import EXAMPLES
from tests.support.stores import in_force
from tests.support.techniques import TECHNIQUES
from tests.support.tokenizers import TEXT, make_tokenizer

CHINESE = "心脏是脊椎动物身体中最重要的一个器官，主要功能是提供压力，把血液运行至身体各个部分。"


def read(tokenizer, examples, task="extractive-qa"):
    splits = {"train": Dataset.from_list(examples)}
    check_reading(tokenizer, splits, TASKS[task], name="some/model", data_dir="squad_data")


def question(context, answer, question="What?"):
    place = {"text": [answer], "answer_start": [context.index(answer)]}
    return {"id": "0", "title": "", "question": question, "context": context, "answers": place}


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """family → a copy of its tiny checkpoint that may be spoilt."""

    def copy(family="bert"):
        return Path(shutil.copytree(tiny(family), tmp_path / family))

    return copy


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def load(folder, head="QuestionAnswering"):
    return base.load_base(base.resolve_checkpoint(str(folder)), head)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_sound_tokenizers_of_every_family_pass(family):
    tokenizer = base.completed(make_tokenizer(family))
    check_fit(tokenizer, make_config(family, tokenizer), "some/model")
    read(tokenizer, EXAMPLES)
    read(tokenizer, texts.make_texts(40), "classification")
    if head_of(TASKS["generative-qa"], FAMILIES[family]):
        read(tokenizer, EXAMPLES, "generative-qa")


def test_the_packaged_model_reads_english_whole():
    tokenizer = base.load_tokenizer(base.resolve_checkpoint("embedded"))
    examples = list(read_squad_json(SAMPLE / "train-v2.0.json").examples)[:200]
    read(tokenizer, examples)
    contexts = list({example["context"] for example in examples})
    encodings = tokenizer(contexts, add_special_tokens=False).encodings
    assert tokenizer_reading.misplaced(tokenizer, contexts, encodings) == (0, "")
    assert tokenizer_reading.unread(tokenizer, contexts, encodings)[0] < 0.001
    assert tokenizer_reading.whole_answers(tokenizer, examples, TASKS["extractive-qa"])[0] > 0.97


@pytest.mark.parametrize("kind", odd.KINDS)
def test_offsets_of_odd_characters_are_right_too(kind):
    tokenizer = odd.tokenizer(kind)
    context = " ".join(["The heart pumps", *odd.CLUSTERS, *odd.INVISIBLE, "blood in 1903"])
    encodings = tokenizer([context], add_special_tokens=False).encodings
    share, example = tokenizer_reading.misplaced(tokenizer, [context], encodings)
    # A normalizer that composes jamo gives the syllable the place of its first letter.
    assert (share, example) == (0, "") or (kind == "unigram" and share < 0.02 and "각" in example)


@pytest.mark.parametrize(
    ("task", "examples"),
    [
        ("extractive-qa", [question(CHINESE, "血液", "什么?")]),
        ("classification", [{"text": CHINESE, "label": 0}]),
    ],
)
def test_a_vocabulary_of_another_language_is_refused(task, examples):
    tokenizer = base.load_tokenizer(base.resolve_checkpoint("embedded"))
    message = (
        r"some/model: \d\d% of the text in squad_data is unknown \(\[UNK\]\) to its tokenizer, for example '"
    )
    with pytest.raises(UserError, match=message):
        read(tokenizer, examples, task)


def test_few_unknown_characters_are_no_reason_to_refuse():
    tokenizer = base.load_tokenizer(base.resolve_checkpoint("embedded"))
    english = [question(" ".join(TEXT), "blood"), question("The 心臟 pumps blood through the body.", "blood")]
    read(tokenizer, english)
    with pytest.raises(UserError, match="unknown"):
        read(tokenizer, english + [question(CHINESE * 4, "血液")])


def test_a_tokenizer_that_drops_what_it_does_not_know_is_refused():
    """A BPE without an unknown token does not report the characters that it leaves out."""
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[CLS]", "[SEP]"], show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    read(tokenizer, EXAMPLES)
    with pytest.raises(UserError, match=r"is unknown \(dropped\)"):
        read(tokenizer, [question(CHINESE, "血液")])


def trimmed_roberta():
    """Words are separated before the byte level adds a space before each, which is then trimmed from the offsets."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
        bos_token="<s>", eos_token="</s>",
    )  # fmt: skip


def test_offsets_that_lose_letters_are_refused():
    tokenizer = trimmed_roberta()
    assert tokenizer_reading.whole_answers(tokenizer, EXAMPLES, TASKS["extractive-qa"])[0] == 0
    with pytest.raises(
        UserError, match=r"offsets of its tokenizer are wrong: \d\d% .*\('Ġ?\w+' stands at '\w+'\)"
    ):
        read(tokenizer, EXAMPLES)


class Shifted:
    """A tokenizer whose offsets are one character too far."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *args, **kwargs):
        encoded = self.tokenizer(*args, **kwargs)
        moved = [
            type("Encoding", (), {"ids": e.ids, "offsets": [(b + 1, e_ + 1) for b, e_ in e.offsets]})
            for e in encoded.encodings
        ]
        return type("Encoded", (), {"encodings": moved})


def test_offsets_that_stand_one_too_far_are_refused():
    with pytest.raises(UserError, match="offsets of its tokenizer are wrong"):
        read(Shifted(make_tokenizer("bert")), EXAMPLES)


def test_answers_that_cannot_be_given_back_are_refused():
    """Whole words only, where the answers are parts of words."""
    made = Tokenizer(kinds.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    made.train_from_iterator(["Herzschlag What"], trainers.WordLevelTrainer(special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )
    read(tokenizer, [question("Herzschlag", "Herzschlag"), question("Herzschlag", "Herz")])
    with pytest.raises(UserError, match="33% of the true answers .*'Herz' comes back as 'Herzschlag'"):
        read(tokenizer, [question("Herzschlag", "Herzschlag")] + [question("Herzschlag", "Herz")] * 2)


def test_answers_that_cannot_be_written_are_refused():
    """They are a small part of the text, but all that a model learns."""
    tokenizer = base.load_tokenizer(base.resolve_checkpoint("embedded"))
    asked = [question(" ".join(TEXT) + " \U00010348\U00010349", "\U00010348\U00010349")]
    read(tokenizer, asked)
    with pytest.raises(UserError, match="reproduces 0% of the true answers .*comes back as ''"):
        read(tokenizer, asked, "generative-qa")


def test_a_slow_tokenizer_is_refused_for_questions():
    class Slow(Shifted):
        is_fast = False

        def __call__(self, *args, **kwargs):
            return self.tokenizer(*args, **kwargs)

    slow = Slow(make_tokenizer("bert"))
    with pytest.raises(UserError, match="slow one, without offsets"):
        read(slow, EXAMPLES)
    read(slow, texts.make_texts(8), "classification")
    with pytest.raises(UserError, match="100% of the text .* is unknown"):
        read(slow, [{"text": CHINESE, "label": 0}], "classification")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_folder_without_a_tokenizer_is_refused(family, checkpoint):
    """transformers makes one with special tokens alone, and it does not know any word."""
    folder = checkpoint(family)
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(UserError, match="no tokenizer|tokenizer cannot be loaded") as refused:
        load(folder, head_of(TASKS["generative-qa"], FAMILIES[family]) or "QuestionAnswering")
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_damaged_tokenizer_is_one_line(part, checkpoint):
    folder = checkpoint()
    whole = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match="tokenizer.json is damaged") as refused:
        load(folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_a_tokenizer_in_an_unknown_format_is_one_line(checkpoint):
    folder = checkpoint()
    change(folder / "tokenizer.json", model={"type": "Telepathy"})
    with pytest.raises(UserError, match="tokenizer.json is damaged"):
        load(folder)


@pytest.mark.parametrize("family", ["bert", "roberta", "t5"])
def test_more_tokens_than_rows_are_refused_with_both_sizes(family, checkpoint):
    folder = checkpoint(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=f"tokenizer has {rows + 2:,} tokens, its embedding {rows:,} rows"):
        load(folder)


def test_an_embedding_that_is_padded_is_fine_and_another_models_is_not():
    tokenizer = make_tokenizer("bert")
    config = make_config("bert", tokenizer)
    config.vocab_size = int(1.3 * len(tokenizer))
    check_fit(tokenizer, config, "some/model")
    config.vocab_size = 2 * len(tokenizer)
    with pytest.raises(UserError, match="it belongs to another model"):
        check_fit(tokenizer, config, "some/model")


def test_missing_special_tokens_are_refused(checkpoint):
    folder = checkpoint()
    whole = json.loads((folder / "tokenizer.json").read_text())
    special = json.loads((folder / "tokenizer_config.json").read_text())
    for processor, message in (
        (None, "no special token between question and context"),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {
            "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}}, "no special token before a text"),
    ):  # fmt: skip
        change(folder / "tokenizer.json", post_processor=processor)
        kept = {name: value for name, value in special.items() if name not in ("eos_token", "bos_token")}
        (folder / "tokenizer_config.json").write_text(json.dumps(kept))
        with pytest.raises(UserError, match=message):
            load(folder)
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    del kept["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match="no padding token"):
        load(folder)


def test_padding_that_a_roberta_would_count_as_a_token_is_refused(checkpoint):
    folder = checkpoint("roberta")
    change(folder / "config.json", pad_token_id=5)
    with pytest.raises(UserError, match="pads with token 1, its config says 5"):
        load(folder)


def test_lengths_and_sides_of_a_checkpoints_settings_cut_nothing_off(checkpoint):
    from common.tasks.classification.texts import make_texts
    from common.tasks.extractive_qa.windows import make_windows

    folder = checkpoint()
    asked = [{"text": " ".join(TEXT), "label": 0}]
    expected = make_texts(load(folder)[1], asked, max_length=20, segment_ids=False, names=("a", "b"))
    change(folder / "tokenizer_config.json", model_max_length=8, truncation_side="left", padding_side="left")
    tokenizer = load(folder)[1]
    assert len(make_windows(tokenizer, EXAMPLES, max_length=96, doc_stride=8, segment_ids=False)) == len(
        EXAMPLES
    )
    found = make_texts(tokenizer, asked, max_length=20, segment_ids=False, names=("a", "b"))
    assert found.input_ids[0].tolist() == expected.input_ids[0].tolist() and found.lengths[0] == 20


@pytest.mark.parametrize("task", ["extractive-qa", "generative-qa"])
def test_nothing_is_trained_or_logged_on_what_the_tokenizer_cannot_read(task, tiny, tmp_path):
    """For each task, the run does not begin."""
    folder = tmp_path / "chinese"
    folder.mkdir()
    asked = [question(f"{i} {CHINESE}", "血液") | {"id": f"{i}", "title": f"{i}"} for i in range(8)]
    for part in ("train", "test"):
        renamed = [e | {"id": part + e["id"], "title": part + e["title"]} for e in asked]
        (folder / f"{part}.json").write_text(squad_json(renamed))
    data_module.prepare_files(
        folder / "train.json", folder / "test.json", folder / "data", validation_share=0.3
    )
    family = "t5" if task == "generative-qa" else "bert"
    args = RunArgs(
        task=task,
        model_checkpoint=tiny(family),
        data_dir=str(folder / "data"),
        max_length=96,
        doc_stride=16,
        output_dir=str(tmp_path / "out"),
    )
    with in_force(tmp_path), pytest.raises(UserError, match="is unknown"):
        fit.fit(TECHNIQUES["lora"](), args)
    assert not (tmp_path / "out").exists()
    with in_force(tmp_path):
        assert not mlflow.search_runs(search_all_experiments=True, output_format="list")


def test_texts_that_the_tokenizer_cannot_read_are_refused(tiny, tmp_path):
    files = [
        texts.write_csv(
            tmp_path / f"{n}.csv", [{"text": f"{CHINESE}{n} {i}", "label": i % 2} for i in range(n)]
        )
        for n in (20, 10)
    ]
    labelled_texts.prepare_files(*files, tmp_path / "data", validation_share=0.2)
    args = RunArgs(
        task="classification",
        model_checkpoint=tiny("bert"),
        data_dir=str(tmp_path / "data"),
        max_length=64,
        output_dir=str(tmp_path / "out"),
    )
    with in_force(tmp_path), pytest.raises(UserError, match="is unknown"):
        fit.fit(TECHNIQUES["lora"](), args)
