"""Texts of characters that are more than one code point, or none that can be seen, and tokenizers of each kind."""

from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.support.tokenizers import train

CLUSTERS = [
    *"The heart 1903, ü – 心臓שלוםسلام",
    "e\u0301",  # decomposed é
    "o\u0323\u0302",
    "क्षि",
    "स्ते",
    "กำ",
    "가",
    "\u1100\u1161\u11a8",  # 각 in jamo
    "👍🏽",
    "👩‍👩‍👧",
    "🇮🇸",
    "🏴\U000e0067\U000e0062\U000e007f",
    "❤\ufe0f",
    "ی\u200c",
    "ש\u05b8",
    "\r\n",
]
"""Each is one character as readers see it."""

INVISIBLE = ["\u200b", "\u200e", "\u200f", "\u00ad", "\u2060", "\ufeff", "\u0007"]
"""Each is a character of its own that cannot be seen."""

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


def texts():
    """Lists of clusters, with invisible characters among them."""
    return st.lists(st.sampled_from(CLUSTERS * 3 + INVISIBLE), min_size=1, max_size=60)


def tokenizer(kind: str):
    """wordpiece (lower case, without accents), cased-wordpiece, byte-bpe or unigram, trained on a few words and CLUSTERS."""
    corpus = [
        "The heart pumps blood in 1903",
        "cafe The the heart",
        *(c * 2 for c in CLUSTERS),
        " ".join(CLUSTERS),
    ]
    if kind == "byte-bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
        )
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=kind == "wordpiece")
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=SPECIAL, show_progress=False)
    train(made, trainer, corpus)
    ids = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


KINDS = ["wordpiece", "cased-wordpiece", "byte-bpe", "unigram"]
