"""Models of families that are not trained here, as anybody saves them."""

import torch
import transformers
from transformers import AutoConfig

from tests.conftest import SIZE
from tests.support.tokenizers import make_tokenizer

UNTRAINED_HERE = {
    # (config, whose tokenizer, longest window)
    "roberta-prelayernorm": (SIZE | dict(max_position_embeddings=130), "roberta", 128),
    "big_bird": (SIZE | dict(max_position_embeddings=128), "albert", 128),
    "squeezebert": (SIZE | dict(max_position_embeddings=128, embedding_size=32), "bert", 128),
    "fnet": (dict(hidden_size=32, num_hidden_layers=2, intermediate_size=64), "albert", 384),
    "xlnet": (dict(d_model=32, n_layer=2, n_head=4, d_inner=64, dropout=0.0), "albert", 384),
}
"""Model types without a row in FAMILIES."""


def untrained_here(folder, model_type, head="QuestionAnswering", **more):
    """A folder with a model of such a type, whose head is decided; gives the model."""
    sizes, of, _ = UNTRAINED_HERE[model_type]
    tokenizer = make_tokenizer(of)
    config = AutoConfig.for_model(
        model_type, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes, **more
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.0 if parameter.shape[0] == 2 else 0.2)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return model.eval(), tokenizer
