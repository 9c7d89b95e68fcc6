"""Small models of every family, built from a config with a tokenizer trained on a few sentences: no network, no weights."""

import os
import signal
import sys

# Before anything imports transformers or mlflow: tests never ask a hub and never report to anyone.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# As on a user's machine, where Python leaves bytecode beside every module that is imported, also beside a stored model's.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As a shell starts what runs in its background; the processes of tests would inherit it and outlive a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test draws is the same each time, so that a change is never refused for what it did not touch; FUZZ_EXAMPLES looks further.
settings.register_profile("same", derandomize="FUZZ_EXAMPLES" not in os.environ, deadline=None)
settings.load_profile("same")

TEXT = [
    "The heart pumps blood through the body about seventy times a minute.",
    "Iceland lies on a ridge where two plates drift apart, two centimetres each year.",
    "In 1903 Marie Curie shared the Nobel Prize in Physics with her husband Pierre.",
    "Bees dance to tell the hive where flowers are; the angle points towards the sun.",
    "Who shared the prize? What does the heart do? Where does Iceland lie? When do bees dance?",
]

SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)


def make_tokenizer(model_type: str):
    """The kind of tokenizer that the family's checkpoints have: WordPiece, byte-level BPE or Unigram."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if model_type in ("gpt2", "t5"):
        return make_generator_tokenizer(model_type)
    if model_type in ("roberta", "modernbert", "deberta-v2"):
        cls, sep, pad, unk = (
            ("<s>", "</s>", "<pad>", "<unk>")
            if model_type == "roberta"
            else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
        )
        special = [cls, pad, sep, unk] if model_type == "roberta" else [pad, cls, sep, unk]
        if model_type == "deberta-v2":
            tokenizer = Tokenizer(models.Unigram())
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            trainer = trainers.UnigramTrainer(
                vocab_size=250, special_tokens=special, unk_token=unk, show_progress=False
            )
        else:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=400,
                special_tokens=special,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
    else:
        cls, sep, pad, unk = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
        tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=[pad, cls, sep, unk], show_progress=False
        )
    tokenizer.train_from_iterator(TEXT, trainer)
    pair = f"{cls}:0 $A:0 {sep}:0 {sep + ':0 ' if model_type == 'roberta' else ''}$B:1 {sep}:1"
    if model_type == "roberta":
        pair = pair.replace(":1", ":0")
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=pair, special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=cls,
        sep_token=sep,
        pad_token=pad,
        unk_token=unk,
        bos_token=cls,
        eos_token=sep,
    )


def make_generator_tokenizer(model_type: str):
    """Trained on the packaged sample. GPT-2's has no padding token and adds no special tokens; T5's ends with </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if model_type == "gpt2":
        end = "<|endoftext|>"
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        trainer = trainers.BpeTrainer(
            vocab_size=1200,
            special_tokens=[end],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(sample_texts(), trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end
        )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
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


def make_config(model_type: str, tokenizer):
    """The family's config at toy size, without dropout."""
    from transformers import AutoConfig

    pad = tokenizer.pad_token_id
    quiet = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    kinds = {
        "bert": SIZE | quiet | dict(max_position_embeddings=128),
        "roberta": SIZE | quiet | dict(max_position_embeddings=130, type_vocab_size=1),
        "electra": SIZE | quiet | dict(max_position_embeddings=128, embedding_size=16),
        "distilbert": dict(
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=128,
            dropout=0.0,
            attention_dropout=0.0,
            qa_dropout=0.0,
        ),
        "deberta-v2": SIZE
        | quiet
        | dict(
            max_position_embeddings=128,
            relative_attention=True,
            position_buckets=16,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
            type_vocab_size=0,
        ),
        "modernbert": SIZE
        | dict(
            max_position_embeddings=128,
            local_attention=8,
            global_attn_every_n_layers=2,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
        ),
        "gpt2": dict(
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=128,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        # Heads that do not add up to the hidden size, and a gated feed-forward layer, as FLAN-T5 has them.
        "t5": dict(
            d_model=32,
            d_kv=6,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=pad,
        ),
    }
    return AutoConfig.for_model(model_type, vocab_size=len(tokenizer), pad_token_id=pad, **kinds[model_type])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """model_type → folder of a tiny checkpoint of that family, as `--model_checkpoint` takes one."""
    made = {}

    def build(model_type: str) -> str:
        if model_type not in made:
            import torch
            import transformers

            folder = tmp_path_factory.mktemp(model_type)
            tokenizer = make_tokenizer(model_type)
            torch.manual_seed(0)
            names = {"gpt2": "ForCausalLM", "t5": "ForSeq2SeqLM"}
            model_class = getattr(transformers, f"AutoModel{names.get(model_type, 'ForQuestionAnswering')}")
            model = model_class.from_config(make_config(model_type, tokenizer))
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[model_type] = str(folder)
        return made[model_type]

    return build


@pytest.fixture(scope="session")
def examples():
    """Questions whose answers are in the sentences that the tiny tokenizers know."""
    from tests.support.questions import EXAMPLES

    return EXAMPLES
