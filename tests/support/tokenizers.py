"""Small tokenizers, each built as those of its family's checkpoints: WordPiece, byte-level BPE, Unigram, or BPE of SentencePiece."""

from dataclasses import dataclass
from functools import cache
from typing import Any

TEXT = [
    "The heart pumps blood through the body about seventy times a minute.",
    "Iceland lies on a ridge where two plates drift apart, two centimetres each year.",
    "In 1903 Marie Curie shared the Nobel Prize in Physics with her husband Pierre.",
    "Bees dance to tell the hive where flowers are; the angle points towards the sun.",
    "Who shared the prize? What does the heart do? Where does Iceland lie? When do bees dance?",
]


@dataclass(frozen=True, eq=False)
class Kind:
    """How a family's tokenizers are built.

    model: "wordpiece", "bytes", "unigram" or "sentencepiece" (BPE that falls back to bytes). special: its special tokens by
    transformers' names, in the order of their ids. single, pair: what stands around one text and around two, as
    TemplateProcessing takes them; "" where nothing does.
    """

    model: str
    special: dict[str, str]
    single: str = ""
    pair: str = ""
    generates: bool = False
    """Whether it is trained on the packaged sample, so that answers can be written."""

    @property
    def tokens(self) -> list[str]:
        return list(dict.fromkeys(self.special.values()))


def _bert(model: str, order: str = "pad cls sep unk", **special: str) -> Kind:
    """[CLS] A [SEP] B [SEP], with segments."""
    names = dict(cls="[CLS]", sep="[SEP]", pad="[PAD]", unk="[UNK]") | special
    cls, sep = names["cls"], names["sep"]
    chosen = {name: names[name] for name in order.split()}
    return Kind(
        model,
        chosen | {"bos": cls, "eos": sep},
        f"{cls} $A {sep}",
        f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
    )


def _roberta(model: str, unk: str = "<unk>", generates: bool = False) -> Kind:
    """<s> A </s></s> B </s>, without segments."""
    special = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": unk, "bos": "<s>", "eos": "</s>"}
    return Kind(model, special, "<s> $A </s>", "<s> $A </s> </s> $B </s>", generates)


_T5 = Kind(
    "unigram",
    {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    "$A </s>",
    "$A </s> $B:1 </s>",
    generates=True,
)

_END = "<|endoftext|>"

_GEMMA = Kind(
    "sentencepiece",
    {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"},
    "<bos> $A",
    "<bos> $A <bos>:1 $B:1",
    generates=True,
)

KINDS = {
    "roberta": _roberta("bytes"),
    "longformer": _roberta("bytes"),
    "bart": _roberta("bytes", generates=True),
    "xlm-roberta": _roberta("unigram"),
    "camembert": _roberta("unigram"),
    "mpnet": _roberta("wordpiece", unk="[UNK]"),
    "albert": _bert("unigram", "pad unk cls sep", pad="<pad>", unk="<unk>"),
    "deberta-v2": _bert("unigram"),
    "modernbert": _bert("bytes"),
    "eurobert": _bert(
        "bytes",
        "cls sep pad",
        cls="<|begin_of_text|>",
        sep="<|end_of_text|>",
        pad="<|pad|>",
    ),
    "t5": _T5,
    "mt5": _T5,
    "gpt2": Kind("bytes", {"bos": _END, "eos": _END, "unk": _END}, generates=True),
    "qwen2": Kind("bytes", {"eos": _END, "pad": _END}, generates=True),
    "qwen3": Kind("bytes", {"eos": _END, "pad": _END}, generates=True),
    # No padding token.
    "llama": Kind(
        "sentencepiece",
        {"unk": "<unk>", "bos": "<s>", "eos": "</s>"},
        "<s> $A",
        "<s> $A <s>:1 $B:1",
        generates=True,
    ),
    "gemma": _GEMMA,
    "gemma3_text": _GEMMA,
}
"""Model type → kind; all others have BERT's."""


_BERT = _bert("wordpiece")


def make_tokenizer(model_type: str) -> Any:
    """A new tokenizer as the family's checkpoints have it, trained on a few texts."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    kind = KINDS.get(model_type, _BERT)
    special = {f"{name}_token": token for name, token in kind.special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(made(kind)), **special)


@cache
def made(kind: Kind) -> str:
    """tokenizer.json of such a tokenizer."""
    from tokenizers import processors

    makers = {
        "wordpiece": _wordpiece,
        "bytes": _bytes,
        "unigram": _unigram,
        "sentencepiece": _sentencepiece,
    }
    tokenizer, trainer = makers[kind.model](kind)
    train(tokenizer, trainer, sample_texts() if kind.generates else TEXT)
    if kind.model == "sentencepiece":
        # Merges are learned within words, and are the only thing that keeps words apart.
        tokenizer.pre_tokenizer.split = False
    if kind.single:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=kind.single,
            pair=kind.pair,
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in kind.tokens],
        )
    return tokenizer.to_str()


def train(tokenizer: Any, trainer: Any, texts: list[str]) -> None:
    """Train a tokenizer, so that its ids are the same each time: random weights then mean the same in each session.

    The trainers of tokenizers take words in the order of a hash table. Where pairs are equally frequent, the order of the
    letters decides which are merged, so WordPiece gets its letters first, in the order of the alphabet.
    """
    from tokenizers import Tokenizer, models

    from common.models.untrained import repeatable_unigram

    if isinstance(tokenizer.model, models.Unigram):
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.model = repeatable_unigram(tokenizer).model
    elif isinstance(tokenizer.model, models.WordPiece):
        special = [token.content for token in trainer.special_tokens]
        normalize = tokenizer.normalizer.normalize_str
        letters = sorted({letter for text in texts for letter in normalize(text) if not letter.isspace()})
        trainer.special_tokens = special + letters + [f"##{letter}" for letter in letters]
        learner = Tokenizer(models.WordPiece(unk_token=tokenizer.model.unk_token))
        learner.normalizer, learner.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        learner.train_from_iterator(texts, trainer)
        tokenizer.model = models.WordPiece(learner.get_vocab(), unk_token=tokenizer.model.unk_token)
        tokenizer.add_special_tokens(special)
    else:
        tokenizer.train_from_iterator(texts, trainer)


def _wordpiece(kind: Kind) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=kind.special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=kind.tokens, show_progress=False
    )


def _bytes(kind: Kind) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if not kind.single:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, trainers.BpeTrainer(
        vocab_size=1200 if kind.generates else 400,
        special_tokens=kind.tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _unigram(kind: Kind) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    if kind.generates:
        tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=1200 if kind.generates else 250,
        special_tokens=kind.tokens,
        unk_token=kind.special["unk"],
        show_progress=False,
    )


def _sentencepiece(kind: Kind) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    unknown = kind.special["unk"]
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer, trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=[*kind.tokens, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )


def sample_texts() -> list[str]:
    """The packaged sample's contexts, questions and answers, and the words that generation puts around them."""
    import json

    from common.paths import SAMPLE

    texts = [*TEXT, "context: question: answer: unanswerable"] * 20
    for article in json.loads((SAMPLE / "train-v2.0.json").read_text())["data"]:
        for paragraph in article["paragraphs"]:
            texts.append(paragraph["context"])
            for qa in paragraph["qas"]:
                texts += [qa["question"], *(answer["text"] for answer in qa["answers"])]
    return texts
