"""The fine-tuning loop: plain PyTorch, one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from rayft.text.batches import collate, length_sorted_batches, shuffled_batches
from rayft.text.encode import Encoded

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True)
class Examples:
    """Encoded texts with their class numbers, int64[n]."""

    encoded: Encoded
    labels: np.ndarray


@dataclass(frozen=True)
class FitConfig:
    """Optimiser and schedule of one fit.

    `learning_rate` is the peak, reached after `warmup_ratio` of all steps and then decayed linearly
    to zero. `average_decay` is the decay of the exponential moving average of the weights, which is
    what is evaluated and kept (Izmailov et al. 2018 on why averages generalise better).
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    batch_tokens: int = 4096
    warmup_ratio: float = 0.06
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    average_decay: float = 0.998
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """State of a fit after a step; `loss` is the mean since the report before."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds: float


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split parameters so that biases and normalisation weights are not decayed."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def linear_schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Return the factor on the peak learning rate at `step` (0-based)."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))


def fit(
    model: ModelT,
    phases: Sequence[Examples],
    config: FitConfig,
    on_progress: Callable[[Progress, ModelT], None],
    report_every: int = 100,
) -> ModelT:
    """Train `model` for one epoch on each of `phases` and return the averaged model.

    The model's forward takes `input_ids` and `attention_mask` and returns an object with `logits`.
    On a CPU with bfloat16 units, the matrix products run in bfloat16 under autocast.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    epochs = [(p, shuffled_batches(p.encoded.lengths, config.batch_tokens, rng)) for p in phases]
    steps = sum(len(batches) for _, batches in epochs)
    warmup_steps = max(1, round(steps * config.warmup_ratio))
    optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.learning_rate, fused=True)
    averaged = copy.deepcopy(model).requires_grad_(False).eval()
    model.train()
    started = window_started = time.monotonic()
    window_loss = window_tokens = 0.0
    for step, (examples, rows) in enumerate(_steps(epochs)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * linear_schedule(step, steps, warmup_steps)
        input_ids, attention_mask = map(torch.from_numpy, collate(examples.encoded, rows))
        labels = torch.from_numpy(examples.labels[rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        # A short average at first: the early weights are of no use to it.
        _average(averaged, model, min(config.average_decay, (step + 1) / (step + 10)))
        window_loss += loss.item()
        window_tokens += attention_mask.sum().item()
        if (step + 1) % report_every == 0 or step + 1 == steps:
            now = time.monotonic()
            count = (step % report_every) + 1
            rate = window_tokens / (now - window_started)
            on_progress(Progress(step + 1, steps, window_loss / count, rate, now - started), averaged)
            window_started, window_loss, window_tokens = time.monotonic(), 0.0, 0.0
    return averaged


def _steps(epochs: Sequence[tuple[Examples, list[np.ndarray]]]) -> Iterator[tuple[Examples, np.ndarray]]:
    for examples, batches in epochs:
        for rows in batches:
            yield examples, rows


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, current in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(current, 1.0 - decay)


@torch.inference_mode()
def probabilities(model: nn.Module, encoded: Encoded, batch_tokens: int = 8192) -> np.ndarray:
    """Return float32[n, classes], the class probabilities of `encoded` in its order, in bfloat16 autocast."""
    model.eval()
    out: np.ndarray | None = None
    for rows in length_sorted_batches(encoded.lengths, batch_tokens):
        input_ids, attention_mask = map(torch.from_numpy, collate(encoded, rows))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
        probs = logits.float().softmax(-1).numpy()
        if out is None:
            out = np.empty((len(encoded), probs.shape[1]), dtype=np.float32)
        out[rows] = probs
    return out if out is not None else np.zeros((0, 0), dtype=np.float32)
