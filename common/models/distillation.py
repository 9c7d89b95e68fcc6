"""A BERT's weights as a DistilBERT of the same shape."""

from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel

RENAMED = {
    "encoder.layer": "transformer.layer",
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def distil_config(bert: PreTrainedConfig, **more: Any) -> PreTrainedConfig:
    """The DistilBERT config of a BERT's; more: further fields."""
    return transformers.DistilBertConfig(
        **more,
        vocab_size=bert.vocab_size,
        max_position_embeddings=bert.max_position_embeddings,
        n_layers=bert.num_hidden_layers,
        n_heads=bert.num_attention_heads,
        dim=bert.hidden_size,
        hidden_dim=bert.intermediate_size,
        dropout=bert.hidden_dropout_prob,
        attention_dropout=bert.attention_probs_dropout_prob,
        activation=bert.hidden_act,
        pad_token_id=bert.pad_token_id,
        qa_dropout=0.0,
    )


def distilled(bert: PreTrainedModel, model_class: type[PreTrainedModel], **config: Any) -> PreTrainedModel:
    """A model of a DistilBERT class with the hidden states of a `BertModel` when all its segment ids are 0.

    The layers are the same under other names; the embedding of segment 0 is a constant, so it moves into the position
    embeddings.
    """
    state = bert.state_dict()
    segment = state.pop("embeddings.token_type_embeddings.weight")[0]
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"] + segment
    for old, new in RENAMED.items():
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    model = model_class(distil_config(bert.config, **config))
    model.distilbert.load_state_dict(state)
    return model
