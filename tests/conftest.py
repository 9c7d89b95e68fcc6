"""Small models of every family, built from a config with a tokenizer trained on a few sentences: no network, no weights."""

import gc
import os
import signal
import sys
from collections import Counter

# Before anything imports transformers or mlflow: tests never ask a hub and never report to anyone.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# What a machine does differs from run to run; the tests of it set this themselves.
os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"
# Several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.support.tokenizers import make_tokenizer

# As on a user's machine, where Python leaves bytecode beside every module that is imported, also beside a stored model's.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As a shell starts what runs in its background; the processes of tests would inherit it and outlive a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test draws is the same each time, so that a change is never refused for what it did not touch; FUZZ_EXAMPLES looks further.
settings.register_profile("same", derandomize="FUZZ_EXAMPLES" not in os.environ, deadline=None)
settings.load_profile("same")

SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)


def make_config(model_type: str, tokenizer):
    """The family's config at toy size, without dropout."""
    from transformers import AutoConfig

    pad = tokenizer.pad_token_id
    ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    quiet = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    kinds = {
        "bert": SIZE | quiet | dict(max_position_embeddings=128),
        **dict.fromkeys(
            ("roberta", "xlm-roberta", "camembert"),
            SIZE | quiet | dict(max_position_embeddings=130, type_vocab_size=1),
        ),
        "mpnet": SIZE | quiet | dict(max_position_embeddings=130),
        # One block that is passed four times.
        "albert": SIZE
        | quiet
        | dict(
            num_hidden_layers=4,
            inner_group_num=1,
            max_position_embeddings=128,
            embedding_size=16,
            classifier_dropout_prob=0.0,
        ),
        # Windows of the tests are longer than those of its attention.
        "longformer": SIZE
        | quiet
        | dict(
            max_position_embeddings=130,
            type_vocab_size=1,
            attention_window=16,
            sep_token_id=tokenizer.sep_token_id,
        ),
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
        # Heads that do not add up to the hidden size, and a gated feed-forward layer, as FLAN-T5 and mT5 have them.
        **dict.fromkeys(
            ("t5", "mt5"),
            dict(
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
        ),
        "bart": dict(
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            dropout=0.0,
            attention_dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=tokenizer.eos_token_id,
        ),
        "eurobert": SIZE | ends | dict(max_position_embeddings=128, num_key_value_heads=2),
        # Grouped queries: two heads share keys and values.
        "llama": SIZE | ends | dict(max_position_embeddings=128, num_key_value_heads=2),
        "qwen2": SIZE
        | ends
        | dict(max_position_embeddings=128, num_key_value_heads=2, tie_word_embeddings=True),
        # Heads that do not add up to the hidden size.
        **dict.fromkeys(
            ("qwen3", "gemma"),
            SIZE
            | ends
            | dict(
                max_position_embeddings=128,
                num_key_value_heads=1,
                head_dim=12,
                tie_word_embeddings=True,
            ),
        ),
        # Every other block sees eight words only.
        "gemma3_text": SIZE
        | ends
        | dict(
            max_position_embeddings=128,
            num_key_value_heads=2,
            head_dim=12,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
        ),
    }
    return AutoConfig.for_model(model_type, vocab_size=len(tokenizer), pad_token_id=pad, **kinds[model_type])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """What takes longest comes first: a process that gets it last works alone.

    That is files of a hundred tests or more, then those of scripts and servers, whose tests are few and long.
    """
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (tests[item.path] < 100, len(item.path.parts)))


@pytest.fixture(autouse=True, scope="module")
def collected():
    """The garbage of the files before is gone, and what they left for good is not looked at again.

    A training collects garbage several times. Each time would go through all that pytest and the packages hold, which takes
    longer than the steps of a tiny model.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """model_type → folder of a tiny checkpoint of that family, as `--model_checkpoint` takes one."""
    made = {}

    def build(model_type: str) -> str:
        if model_type not in made:
            import torch
            import transformers

            from tests.support.cells import usual_head

            folder = tmp_path_factory.mktemp(model_type)
            tokenizer = make_tokenizer(model_type)
            torch.manual_seed(0)
            # Models that write are pretrained by writing.
            head = usual_head(model_type)
            model_class = getattr(transformers, f"AutoModelFor{head}")
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
