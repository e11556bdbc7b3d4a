"""Rewrite a BERT encoder as the DistilBERT encoder that computes the same hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import DistilBertConfig

_LAYER_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def distilbert_config(bert: Mapping[str, Any], **overrides: Any) -> DistilBertConfig:
    """Return the DistilBERT configuration of the same shape as the BERT configuration `bert`."""
    return DistilBertConfig(
        vocab_size=bert["vocab_size"],
        max_position_embeddings=bert["max_position_embeddings"],
        n_layers=bert["num_hidden_layers"],
        n_heads=bert["num_attention_heads"],
        dim=bert["hidden_size"],
        hidden_dim=bert["intermediate_size"],
        activation=bert["hidden_act"],
        pad_token_id=bert["pad_token_id"],
        **overrides,
    )


def bert_to_distilbert(weights: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, torch.Tensor]:
    """Rename BERT's `weights` to DistilBERT's names, prefix `distilbert.` included.

    DistilBERT has no token types and no pooler. All tokens of a single text have type 0, so its
    embedding is added to every position embedding, which leaves the sum unchanged; the pooler is
    dropped because DistilBERT's classifier brings its own.
    """
    converted = {
        "embeddings.word_embeddings.weight": weights["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0],
        "embeddings.LayerNorm.weight": weights["embeddings.LayerNorm.weight"],
        "embeddings.LayerNorm.bias": weights["embeddings.LayerNorm.bias"],
    }
    for layer in range(n_layers):
        for bert_name, distil_name in _LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                source = f"encoder.layer.{layer}.{bert_name}.{kind}"
                converted[f"transformer.layer.{layer}.{distil_name}.{kind}"] = weights[source]
    return {f"distilbert.{name}": tensor.contiguous() for name, tensor in converted.items()}
