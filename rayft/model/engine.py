"""What computes logits from token ids: one class per library, behind one small interface."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from rayft.errors import UsageError
from rayft.model.checkpoint import Checkpoint

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = ("auto", "fp32", "bf16")
DEVICES: tuple[str, ...] = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class EngineSpec:
    """An engine as resolved on one machine, to be built the same on every other.

    Attributes:
        backend: the library that computes.
        device: `cpu` or `cuda`.
    """

    backend: Literal["torch"]
    precision: Precision
    device: Literal["cpu", "cuda"]


class Engine(Protocol):
    """Computes logits of padded batches."""

    spec: EngineSpec

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Return float32[b, classes] for int64[b, s] ids and mask."""


def resolve_engine(precision: str = "auto", device: str = "auto") -> EngineSpec:
    """Choose device and precision of this machine: a GPU if there is one, bf16 where it is native.

    Raises:
        UsageError: a device is asked for that is not there.
    """
    found: Literal["cpu", "cuda"] = "cuda" if device != "cpu" and _gpu_present() else "cpu"
    if device == "cuda" and found != "cuda":
        raise UsageError("--device cuda: this machine has no NVIDIA GPU that the driver shows.")
    if precision == "auto":
        precision = "bf16" if found == "cuda" or _native_bf16() else "fp32"
    return EngineSpec("torch", "bf16" if precision == "bf16" else "fp32", found)


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
    """Load the weights. `threads` is the number of CPU threads; None takes every usable core."""
    return TorchEngine(checkpoint, spec, threads or len(os.sched_getaffinity(0)))


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
