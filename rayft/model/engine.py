"""What computes logits from token ids: one class per library, behind one small interface."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from rayft.errors import UsageError
from rayft.model.checkpoint import Checkpoint

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = ("auto", "fp32", "bf16")
DEVICES: tuple[str, ...] = ("auto", "cpu", "cuda")
BACKENDS: tuple[str, ...] = ("auto", "openvino", "torch")
#: Of a DistilBERT's feed-forward layers -> OpenVINO's approximation of GELU, or none.
OPENVINO_ACTIVATIONS = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "relu": None}

#: Padded tokens per batch by backend and device, as benchmarks/LOG.md found them best.
BATCH_TOKENS = {("torch", "cpu"): 4096, ("torch", "cuda"): 65536, ("openvino", "cpu"): 2048}

Batch = tuple[np.ndarray, np.ndarray]  # input_ids int64[b, s], attention_mask int64[b, s]


@dataclass(frozen=True)
class EngineSpec:
    """An engine as resolved on one machine, to be built the same on every other.

    Attributes:
        backend: the library that computes.
        device: `cpu` or `cuda`.
    """

    backend: Literal["torch", "openvino"]
    precision: Precision
    device: Literal["cpu", "cuda"]

    @property
    def batch_tokens(self) -> int:
        """Padded tokens per batch that suit this engine."""
        return BATCH_TOKENS[(self.backend, self.device)]


class Engine(Protocol):
    """Computes logits of padded batches."""

    spec: EngineSpec

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Return float32[b, classes] for int64[b, s] ids and mask."""


@runtime_checkable
class ParallelEngine(Engine, Protocol):
    """An engine that is faster with several batches in flight."""

    def logits_many(self, batches: Iterable[Batch]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch in the order of `batches`, which is read a little ahead."""


def logits_in_order(engine: Engine, batches: Iterable[Batch]) -> Iterator[np.ndarray]:
    """Yield float32[b, classes] for each batch in order, several in flight where the engine gains by it."""
    if isinstance(engine, ParallelEngine):
        return engine.logits_many(batches)
    return (engine.logits(input_ids, attention_mask) for input_ids, attention_mask in batches)


def resolve_engine(
    precision: str = "auto",
    device: str = "auto",
    backend: str = "auto",
    model: Mapping[str, Any] | None = None,
) -> EngineSpec:
    """Choose device, library and precision of this machine.

    A GPU if there is one; on CPUs OpenVINO if it is installed and has the model's architecture; bf16
    where the processor has it.

    Args:
        model: the checkpoint's config.json; without it the library is torch unless asked otherwise.

    Raises:
        UsageError: a device or library is asked for that is not there, or not for this model.
    """
    found: Literal["cpu", "cuda"] = "cpu"
    if device != "cpu" and not (device == "auto" and backend == "openvino") and _gpu_present():
        found = "cuda"
    if device == "cuda" and found != "cuda":
        raise UsageError("--device cuda: this machine has no NVIDIA GPU that the driver shows.")
    chosen: Literal["torch", "openvino"] = "torch"
    if backend == "openvino":
        if device == "cuda":
            raise UsageError("--engine-backend openvino computes on CPUs; use --device cpu or leave --device out.")
        if reason := why_not_openvino(model or {}):
            raise UsageError(f"--engine-backend openvino cannot score this model: {reason}.")
        chosen = "openvino"
    elif backend == "auto" and found == "cpu" and model is not None and why_not_openvino(model) is None:
        chosen = "openvino"
    if precision == "auto":
        precision = "bf16" if found == "cuda" or _native_bf16() else "fp32"
    return EngineSpec(chosen, "bf16" if precision == "bf16" else "fp32", found)


def why_not_openvino(model: Mapping[str, Any]) -> str | None:
    """Return why OpenVINO cannot score the model of this config.json here, None if it can. Imports nothing."""
    if not openvino_installed():
        return "OpenVINO is not installed; install it with pip install 'rayft[fast]'"
    if model.get("model_type") != "distilbert":
        return f"rayft builds DistilBERT in OpenVINO, and this model is {model.get('model_type') or 'of no named type'}"
    if model.get("activation", "gelu") not in OPENVINO_ACTIVATIONS:
        return f"rayft does not build the activation {model['activation']} in OpenVINO"
    return None


def openvino_installed() -> bool:
    """Tell whether OpenVINO can be imported, without doing so."""
    return importlib.util.find_spec("openvino") is not None


def _gpu_present() -> bool:
    """Tell whether the NVIDIA driver shows a GPU, without importing torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(re.fullmatch(r"nvidia\d+", p.name) for p in Path("/dev").glob("nvidia*"))


def _native_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def build_engine(checkpoint: Checkpoint, spec: EngineSpec, threads: int | None = None) -> Engine:
    """Load the weights. `threads` is the number of CPU threads; None takes every usable core.

    Raises:
        UsageError: the weights cannot be loaded, or the library is not installed here.
    """
    threads = threads or len(os.sched_getaffinity(0))
    if spec.backend == "openvino":
        if not openvino_installed():
            raise UsageError(
                "These scores are to be computed with OpenVINO, which is not installed on this machine. "
                "Install it with pip install 'rayft[fast]'."
            )
        from rayft.model.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(checkpoint, spec, threads)
    return TorchEngine(checkpoint, spec, threads)


class TorchEngine:
    """Any Hugging Face sequence classifier in PyTorch.

    In bf16 the encoder computes in bf16 and the classifier in fp32: logits rounded to 8 bits would
    make confidences jump in steps of up to 0.004.
    """

    def __init__(self, checkpoint: Checkpoint, spec: EngineSpec, threads: int) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.spec = spec
        self._torch = torch
        torch.set_num_threads(threads)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UsageError(f"Cannot load model {checkpoint.name}: {reason}") from error
        model.eval().requires_grad_(False)
        if spec.precision == "bf16":
            model.to(torch.bfloat16)
            for name, module in model.named_children():
                if name != model.base_model_prefix:
                    module.float().register_forward_pre_hook(_inputs_to_float)
        self._model = model.to(spec.device)

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        torch = self._torch
        with torch.inference_mode():
            ids = torch.from_numpy(input_ids).to(self.spec.device)
            mask = torch.from_numpy(attention_mask).to(self.spec.device)
            out: np.ndarray = self._model(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()
        return out


def _inputs_to_float(_module: object, inputs: tuple) -> tuple:
    return tuple(value.float() if hasattr(value, "is_floating_point") else value for value in inputs)
