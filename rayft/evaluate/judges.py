"""What gives reviews class probabilities: the model, and the baselines that it is measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from rayft.errors import UsageError
from rayft.model.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from rayft.model.engine import Engine, EngineSpec, build_engine, resolve_engine
from rayft.score.span import BatchDone, EncodedSpan, encode, infer
from rayft.text.clean import join

OnBatch = Callable[[BatchDone], None] | None
Texts = Sequence[str | None]


class Judge(Protocol):
    """Gives class probabilities.

    Attributes:
        name: for reports; `what`: one sentence that says what it is.
    """

    name: str
    what: str

    def probabilities(self, titles: Texts, texts: Texts, on_batch: OnBatch = None) -> np.ndarray:
        """Return float32[n, classes] in the order of the model's classes; texts are not blank."""


@dataclass
class ModelJudge:
    """A checkpoint with its engine: the steps of `rayft score`, with every probability kept."""

    checkpoint: Checkpoint
    spec: EngineSpec
    engine: Engine
    max_length: int
    what: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        self._encoder = self.checkpoint.encoder(self.max_length)
        self.name = self.name or self.checkpoint.name
        layers = self.checkpoint.config.get("architectures") or ["sequence classifier"]
        self.what = self.what or f"{layers[0]}, digest {self.checkpoint.digest}"

    def encode(self, titles: Texts | None, texts: Texts) -> EncodedSpan:
        return encode(titles, texts, self._encoder, self.checkpoint.join_format)

    def infer(self, span: EncodedSpan, on_batch: OnBatch = None) -> np.ndarray:
        """Return float32[distinct texts, classes]."""
        return infer(self.engine, span.texts, len(self.checkpoint.labels), self.spec.batch_tokens, on_batch)

    def probabilities(self, titles: Texts | None, texts: Texts, on_batch: OnBatch = None) -> np.ndarray:
        span = self.encode(titles, texts)
        found = np.full((span.rows, len(self.checkpoint.labels)), np.nan, dtype=np.float32)
        scored = span.row_text >= 0
        found[scored] = self.infer(span, on_batch)[span.row_text[scored]]
        return found


def open_model(
    model: str | None,
    precision: str = "auto",
    device: str = "auto",
    max_length: int | None = None,
    threads: int | None = None,
) -> ModelJudge:
    """Load a checkpoint for judging.

    Raises:
        UsageError: there is no such model, or it cannot read reviews of that length.
    """
    checkpoint = load_checkpoint(model)
    longest = checkpoint.config.get("max_position_embeddings", 512)
    if max_length is not None and not 8 <= max_length <= longest:
        raise UsageError(f"--max-length must be between 8 and {longest} tokens for model {checkpoint.name}.")
    spec = resolve_engine(precision, device, "auto", checkpoint.config)
    engine = build_engine(checkpoint, spec, threads)
    return ModelJudge(checkpoint, spec, engine, max_length or checkpoint.max_length)


class Reordered:
    """A judge whose classes are put into the order of another model's."""

    def __init__(self, judge: ModelJudge, labels: Sequence[str]) -> None:
        own = [label.lower() for label in judge.checkpoint.labels]
        if sorted(own) != sorted(label.lower() for label in labels):
            raise UsageError(
                f"Baseline {judge.name} has the labels {', '.join(judge.checkpoint.labels)}; "
                f"the model has {', '.join(labels)}. They must be the same to be compared."
            )
        self.name, self.what = judge.name, judge.what
        self._judge = judge
        self._order = [own.index(label.lower()) for label in labels]

    def probabilities(self, titles: Texts, texts: Texts, on_batch: OnBatch = None) -> np.ndarray:
        found: np.ndarray = self._judge.probabilities(titles, texts, on_batch)[:, self._order]
        return found


def open_untrained(model: ModelJudge, base: str | None, seed: int) -> ModelJudge:
    """Return a model that has not learnt the task: an encoder with a freshly drawn head.

    Args:
        base: whose encoder to take; None takes that of `model` itself, whose weights may already have been
            tuned for the task, so that only the head is untrained.
    """
    if base is None:
        what = (
            f"the encoder of {model.name} with its weights as they are, and a classifier head drawn anew "
            f"with seed {seed} (normal, standard deviation of the configuration; biases 0). If that encoder "
            "was fine-tuned for the task, a drawn head can be far better or far worse than chance: for the "
            "state before fine-tuning use --baseline untrained:BASE"
        )
        checkpoint, directory = model.checkpoint, model.checkpoint.directory
    else:
        directory = find_checkpoint(base)
        if not list(directory.glob("*.safetensors")) or not (directory / "tokenizer.json").is_file():
            raise UsageError(f"--baseline untrained:{base} needs *.safetensors and tokenizer.json in {directory}.")
        what = f"the encoder of {base} as it is, and a classifier head drawn with seed {seed}; nothing was trained"
        checkpoint = replace(model.checkpoint, directory=directory, name=base, digest="untrained")
    engine = _UntrainedEngine(directory, model.checkpoint.labels, model.spec, seed)
    name = "untrained" if base is None else f"untrained {base}"
    return ModelJudge(checkpoint, model.spec, engine, model.max_length, what, name)


class _UntrainedEngine:
    """A sequence classifier with a head drawn from a seed, in fp32."""

    def __init__(self, directory: Any, labels: Sequence[str], spec: EngineSpec, seed: int) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.spec = replace(spec, backend="torch", precision="fp32")
        self._torch = torch
        torch.manual_seed(seed)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                directory, num_labels=len(labels), dtype=torch.float32, local_files_only=True, use_safetensors=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"Cannot load an encoder from {directory}: {str(error).strip().splitlines()[0]}"
            ) from error
        spread = getattr(model.config, "initializer_range", 0.02)
        for name, part in model.named_children():
            if name == model.base_model_prefix:
                continue
            for own, parameter in part.named_parameters():  # a head that was trained would be loaded too
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=spread)
                else:
                    torch.nn.init.constant_(parameter, float(own.endswith("weight")))  # a norm's weight is 1
        self._model = model.eval().requires_grad_(False).to(spec.device)

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        torch = self._torch
        with torch.inference_mode():
            ids = torch.from_numpy(input_ids).to(self.spec.device)
            mask = torch.from_numpy(attention_mask).to(self.spec.device)
            found: np.ndarray = self._model(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()
        return found


class TfidfJudge:
    """Logistic regression on TF-IDF of words and word pairs, trained here: what needs no neural network.

    Sublinear term frequencies, terms of at least two reviews, at most 200,000 of them (Manning et al. 2008).
    """

    def __init__(self, texts: Sequence[str], truth: np.ndarray, classes: int, join_format: str, seed: int) -> None:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
        except ImportError as error:
            raise UsageError("--baseline tfidf needs scikit-learn: pip install scikit-learn") from error
        self._join, self._classes = join_format, classes
        vectoriser = TfidfVectorizer(
            ngram_range=(1, 2), min_df=2, max_features=200_000, sublinear_tf=True, token_pattern=r"(?u)\b\w[\w']*\b"
        )
        self._pipeline = make_pipeline(vectoriser, LogisticRegression(C=4.0, max_iter=1000, random_state=seed))
        try:
            self._pipeline.fit(texts, truth)
        except ValueError as error:
            raise UsageError(f"--baseline tfidf cannot learn from --train: {error}") from error
        self.name = "tfidf"
        self.what = f"logistic regression on TF-IDF of words and word pairs, trained on {len(texts):,} reviews"

    def probabilities(self, titles: Texts, texts: Texts, on_batch: OnBatch = None) -> np.ndarray:
        joined = [join(title, text, self._join) for title, text in zip(titles, texts, strict=True)]
        found = np.zeros((len(joined), self._classes), dtype=np.float32)
        found[:, self._pipeline[-1].classes_] = self._pipeline.predict_proba(joined)
        return found
