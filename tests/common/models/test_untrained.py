"""Small models with random weights that load as the real ones do."""

import pytest
import transformers
from safetensors.torch import load_file

from common.errors import UserError
from common.models.untrained import make
from tests.support import tokenizers


@pytest.mark.parametrize(
    ("name", "model_class"),
    [("untrained-gpt2", "GPT2LMHeadModel"), ("untrained-t5", "T5ForConditionalGeneration")],
)
def test_it_loads_as_a_checkpoint_of_its_family_does(name, model_class, tmp_path):
    folder = make(name, tmp_path / "a")
    assert make(name, tmp_path / "a") == folder
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.model_type == name.removeprefix("untrained-")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "Where does blood take up oxygen?"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert len(tokenizer) == config.vocab_size <= 2000 and tokenizer.eos_token_id == config.eos_token_id
    model = getattr(transformers, model_class).from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) < 10**6
    again = make(name, tmp_path / "b")
    first, second = (load_file(made / "model.safetensors") for made in (folder, again))
    # Tokenizers' trainers take their texts in the order of a hash table, which differs from one to the next.
    assert (again / "tokenizer.json").read_text() == (folder / "tokenizer.json").read_text()
    assert first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)


def test_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="choose untrained-gpt2 or untrained-t5"):
        make("untrained-bert", tmp_path)


@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta", "albert", "llama", "t5"])
def test_the_tests_own_tokenizers_are_the_same_each_time(family):
    """Else random weights learn something else in each session, and tests of learning depend on luck."""
    first = tokenizers.make_tokenizer(family).get_vocab()
    tokenizers.made.cache_clear()
    assert tokenizers.make_tokenizer(family).get_vocab() == first
