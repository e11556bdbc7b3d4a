"""DistilBERT sequence classifiers as OpenVINO graphs, built from config.json and safetensors alone.

Follows transformers' DistilBertForSequenceClassification (Sanh et al. 2019, arXiv:1910.01108). The
classifier reads nothing but the first token, so the last layer computes keys and values of every
token and everything else of the first token only: the same logits for about a seventh less work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayft.errors import UsageError
from rayft.model.engine import OPENVINO_ACTIVATIONS
from rayft.model.openvino_import import op, ov

_EPSILON = 1e-12  # of every LayerNorm, a constant in DistilBERT

Weights = Mapping[str, np.ndarray]


def read_weights(directory: Path) -> dict[str, np.ndarray]:
    """Return all tensors of a checkpoint's *.safetensors as float32.

    Raises:
        UsageError: a file is damaged or holds numbers that are not floating point.
    """
    from safetensors import SafetensorError, deserialize

    weights: dict[str, np.ndarray] = {}
    for file in sorted(directory.glob("*.safetensors")):
        try:
            tensors = deserialize(file.read_bytes())
        except (SafetensorError, OSError) as error:
            raise UsageError(f"Cannot read {file}: {error}") from error
        for name, tensor in tensors:
            weights[name] = _to_float32(tensor["data"], tensor["dtype"], f"{name} in {file}").reshape(tensor["shape"])
    return weights


def _to_float32(data: bytes, dtype: str, where: str) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    known = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    if dtype not in known:
        raise UsageError(f"{where} is {dtype}; weights must be floating point.")
    return np.frombuffer(data, dtype=known[dtype]).astype(np.float32)


def build_graph(config: Mapping[str, Any], weights: Weights) -> ov.Model:
    """Return the classifier as a graph with dynamic batch and length.

    Inputs `input_ids` and `attention_mask`, int64[b, s]; output `logits`, float32[b, classes].

    Args:
        weights: name in transformers' checkpoints -> float32 tensor.

    Raises:
        UsageError: a tensor is missing.
    """
    try:
        return _Graph(config, weights).model()
    except KeyError as error:
        raise UsageError(f"The weights lack the tensor {error.args[0]}: not a DistilBERT classifier.") from None


class _Graph:
    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._weights = weights
        self._layers = int(config.get("n_layers", 6))
        self._heads = int(config.get("n_heads", 12))
        self._dim = int(config.get("dim", 768))
        self._gelu = OPENVINO_ACTIVATIONS[config.get("activation", "gelu")]

    def model(self) -> ov.Model:
        ids = op.parameter([-1, -1], np.int64, name="input_ids")
        mask = op.parameter([-1, -1], np.int64, name="attention_mask")
        hidden = self._embeddings(ids)
        seen = op.unsqueeze(op.not_equal(mask, _int(0)), _int([1, 2]))  # bool[b, 1, 1, s]
        for layer in range(self._layers):
            hidden = self._layer(hidden, seen, layer, first_only=layer == self._layers - 1)
        first = op.squeeze(self._first(hidden), _int([1]))
        logits = self._linear(op.relu(self._linear(first, "pre_classifier")), "classifier")
        for node, name in ((ids, "input_ids"), (mask, "attention_mask"), (logits, "logits")):
            node.output(0).get_tensor().set_names({name})
        return ov.Model([op.result(logits, name="logits")], [ids, mask], "distilbert")

    def _embeddings(self, ids: ov.Node) -> ov.Node:
        words = op.gather(self._constant("distilbert.embeddings.word_embeddings.weight"), ids, _int(0))
        length = op.gather(op.shape_of(ids), _int([1]), _int(0))
        table = self._constant("distilbert.embeddings.position_embeddings.weight")
        positions = op.slice(table, _int([0]), length, _int([1]), _int([0]))
        return self._norm(op.add(words, positions), "distilbert.embeddings.LayerNorm")

    def _layer(self, hidden: ov.Node, seen: ov.Node, layer: int, first_only: bool) -> ov.Node:
        name = f"distilbert.transformer.layer.{layer}"
        asking = self._first(hidden) if first_only else hidden
        attention = f"{name}.attention"
        heads = op.scaled_dot_product_attention(
            self._split(self._linear(asking, f"{attention}.q_lin")),
            self._split(self._linear(hidden, f"{attention}.k_lin")),
            self._split(self._linear(hidden, f"{attention}.v_lin")),
            seen,
        )
        joined = op.reshape(op.transpose(heads, _int([0, 2, 1, 3])), _int([0, 0, self._dim]), True)
        attended = op.add(self._linear(joined, f"{attention}.out_lin"), asking)
        attended = self._norm(attended, f"{name}.sa_layer_norm")
        wide = self._activate(self._linear(attended, f"{name}.ffn.lin1"))
        return self._norm(op.add(self._linear(wide, f"{name}.ffn.lin2"), attended), f"{name}.output_layer_norm")

    def _first(self, hidden: ov.Node) -> ov.Node:
        """[b, s, dim] -> [b, 1, dim]."""
        return op.slice(hidden, _int([0]), _int([1]), _int([1]), _int([1]))

    def _split(self, projected: ov.Node) -> ov.Node:
        """[b, s, dim] -> [b, heads, s, dim / heads]."""
        split = op.reshape(projected, _int([0, 0, self._heads, self._dim // self._heads]), True)
        return op.transpose(split, _int([0, 2, 1, 3]))

    def _activate(self, hidden: ov.Node) -> ov.Node:
        return op.relu(hidden) if self._gelu is None else op.gelu(hidden, self._gelu)

    def _linear(self, hidden: ov.Node, name: str) -> ov.Node:
        product = op.matmul(hidden, self._constant(f"{name}.weight"), False, True)
        return op.add(product, self._constant(f"{name}.bias"))

    def _norm(self, hidden: ov.Node, name: str) -> ov.Node:
        normal = op.mvn(hidden, _int([-1]), True, _EPSILON, "inside_sqrt")
        return op.add(op.multiply(normal, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> ov.Node:
        return op.constant(self._weights[name])


def _int(value: int | list[int]) -> ov.Node:
    return op.constant(np.array(value, dtype=np.int64))
