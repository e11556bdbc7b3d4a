"""Evaluate: read labelled rows, let the model and a baseline judge them, measure, look at the errors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayft.data.storage import locate
from rayft.errors import InputError, UsageError
from rayft.evaluate.config import EvaluateConfig
from rayft.evaluate.data import Labelled, read_labelled
from rayft.evaluate.judges import Judge, ModelJudge, Reordered, TfidfJudge, open_model, open_untrained
from rayft.evaluate.measure import measure, measure_against, measure_curves, measure_threshold
from rayft.evaluate.occlusion import strongest, word_effects
from rayft.evaluate.slices import DESCRIPTIONS, Slices, flags, make_slices, slice_report, suspected_labels
from rayft.score.run import Progress, Silent
from rayft.text.clean import join

_BLOCK_ROWS = 16_384
_SHOWN_LETTERS = 2000


@dataclass(frozen=True)
class Judged:
    """What the model says of every row.

    Attributes:
        probabilities: float32[n, classes]; baseline: the same of the baseline, if there is one.
        of_text: bool[n, rules], membership in the slices of the text.
    """

    probabilities: np.ndarray
    baseline: np.ndarray | None
    of_text: np.ndarray


def evaluate(config: EvaluateConfig, progress: Progress | None = None) -> tuple[dict[str, Any], pa.Table]:
    """Evaluate a model and return the report and the table of its errors.

    Raises:
        UsageError: model, data, columns or labels do not fit; the message says what there is.
    """
    try:
        return _evaluate(config, progress or Silent())
    except InputError as error:  # there is nothing else that could be complete
        raise UsageError(str(error)) from error


def _evaluate(config: EvaluateConfig, progress: Progress) -> tuple[dict[str, Any], pa.Table]:
    started = time.monotonic()
    model = open_model(config.model, config.precision, config.device, config.max_length, config.threads)
    labels = model.checkpoint.labels
    target = model.checkpoint.negative_index(config.negative_label)
    data = read_labelled(config, config.sources, labels, config.limit)
    usable, baseline = _baseline(config, model, data)
    judged = _judge(model, baseline, data, progress)
    predicted = judged.probabilities.argmax(axis=1)
    wrong = predicted != data.truth
    other = None if judged.baseline is None else judged.baseline.argmax(axis=1)
    slices = make_slices(
        judged.of_text, data.column("category"), data.column("stars"), [labels[k] for k in data.truth.tolist()]
    )
    suspects = suspected_labels(data.truth, judged.probabilities)
    report: dict[str, Any] = {
        "model": {
            "name": model.name,
            "digest": model.checkpoint.digest,
            "labels": list(labels),
            "max_length": model.max_length,
            "precision": model.spec.precision,
            "device": model.spec.device,
        },
        "data": _data_report(data),
        "metrics": measure(data.truth, judged.probabilities, labels, config.seed),
        "threshold": None
        if target is None
        else measure_threshold(data.truth, judged.probabilities, labels, target, config.threshold),
        "curves": measure_curves(data.truth, judged.probabilities, labels),
        "baseline": None,
        "slices": slice_report(slices, wrong, None if other is None else other != data.truth),
        "slice_rules": DESCRIPTIONS,
        "errors": _errors(config, model, data, judged, slices, suspects, progress),
        "suspected_labels": {
            "rows": len(suspects),
            "share": len(suspects) / len(data),
            "shown": [_shown(model, data, judged, slices, row) for row in suspects[: config.top].tolist()],
        },
    }
    if baseline is not None and judged.baseline is not None and other is not None:
        report["baseline"] = {
            "name": baseline.name,
            "what": baseline.what,
            **usable,
            "metrics": measure(data.truth, judged.baseline, labels, config.seed),
            "against": measure_against(data.truth, predicted, other, config.seed),
        }
    report["seconds"] = round(time.monotonic() - started, 3)
    return report, error_table(model, data, judged, slices, suspects)


def _data_report(data: Labelled) -> dict[str, Any]:
    return {
        "sources": data.sources,
        "rows_read": data.read,
        "dropped": data.dropped,
        "usable": data.usable,
        "evaluated": len(data),
        "splits": data.splits,
    }


def _baseline(config: EvaluateConfig, model: ModelJudge, data: Labelled) -> tuple[dict[str, Any], Judge | None]:
    """Return what is to be reported about the baseline, and the baseline."""
    name = config.baseline
    if name is None:
        return {}, None
    if name == "untrained" or name.startswith("untrained:"):
        return {"seed": config.seed}, open_untrained(model, name.partition(":")[2] or None, config.seed)
    if name != "tfidf":
        return {}, Reordered(
            open_model(name, config.precision, config.device, config.max_length, config.threads),
            model.checkpoint.labels,
        )
    assert config.train is not None
    train = read_labelled(config, [config.train], model.checkpoint.labels, None)
    texts = _joined(model, train)
    seen = {_key(text) for text in _joined(model, data)}
    kept = [i for i, text in enumerate(texts) if _key(text) not in seen]
    if not kept:
        raise UsageError(f"Every text of --train {config.train} is in the evaluated data.")
    judge = TfidfJudge(
        [texts[i] for i in kept],
        train.truth[kept],
        len(model.checkpoint.labels),
        model.checkpoint.join_format,
        config.seed,
    )
    return {"train_rows": len(kept), "train_rows_also_evaluated": len(texts) - len(kept)}, judge


def _key(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _joined(model: ModelJudge, data: Labelled) -> list[str]:
    titles, texts = data.texts()
    return [join(title, text, model.checkpoint.join_format) for title, text in zip(titles, texts, strict=True)]


def _judge(model: ModelJudge, baseline: Judge | None, data: Labelled, progress: Progress) -> Judged:
    """Let model and baseline judge all rows, block by block."""
    classes = len(model.checkpoint.labels)
    probabilities = np.empty((len(data), classes), dtype=np.float32)
    others = None if baseline is None else np.empty((len(data), classes), dtype=np.float32)
    of_text = np.zeros((len(data), len(DESCRIPTIONS)), dtype=bool)
    progress.begin(len(data) * (1 if baseline is None else 2), 0, 0)
    try:
        for start in range(0, len(data), _BLOCK_ROWS):
            rows = slice(start, min(len(data), start + _BLOCK_ROWS))
            titles, texts = data.texts(rows)
            span = model.encode(titles, texts)
            probabilities[rows] = model.infer(span, progress.batch)[span.row_text]
            cut = span.texts.truncated[span.row_text].tolist()
            join_format = model.checkpoint.join_format
            of_text[rows] = [
                flags(join(title, text, join_format), was_cut)
                for title, text, was_cut in zip(titles, texts, cut, strict=True)
            ]
            if baseline is not None and others is not None:
                others[rows] = baseline.probabilities(titles, texts, progress.batch)
    finally:
        progress.end()
    return Judged(probabilities, others, of_text)


def _errors(
    config: EvaluateConfig,
    model: ModelJudge,
    data: Labelled,
    judged: Judged,
    slices: Slices,
    suspects: np.ndarray,
    progress: Progress,
) -> dict[str, Any]:
    """Return the errors of which the model was most confident, with the words that drove them."""
    predicted = judged.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != data.truth)
    confidence = judged.probabilities[wrong, predicted[wrong]]
    chosen = wrong[np.argsort(-confidence, kind="stable")][: config.top]
    titles, texts = data.texts(chosen)
    joined = [join(t, b, model.checkpoint.join_format) for t, b in zip(titles, texts, strict=True)]
    effects = word_effects(
        joined, predicted[chosen].tolist(), lambda variants: model.probabilities(None, variants), model.max_length
    )
    shown = []
    doubted = set(suspects.tolist())
    for row, words in zip(chosen.tolist(), effects, strict=True):
        entry = _shown(model, data, judged, slices, row)
        entry["suspected_label"] = row in doubted
        entry["words"] = [{"word": word, "effect": round(effect, 4)} for word, effect in strongest(words)]
        entry["effects"] = [[word, None if e is None else round(e, 4)] for word, e in words]
        shown.append(entry)
    return {"rows": len(wrong), "shown": shown}


def _shown(model: ModelJudge, data: Labelled, judged: Judged, slices: Slices, row: int) -> dict[str, Any]:
    labels = model.checkpoint.labels
    p = judged.probabilities[row]
    (title,), (text,) = data.texts(np.array([row]))
    entry: dict[str, Any] = {
        "file": data.table["file"][row].as_py(),
        "row": data.table["row"][row].as_py(),
        "label": labels[data.truth[row]],
        "predicted": labels[int(p.argmax())],
        "confidence": round(float(p.max()), 6),
        "label_probability": round(float(p[data.truth[row]]), 6),
        "slices": slices.of_row(row),
        "text": join(title, text, model.checkpoint.join_format)[:_SHOWN_LETTERS],
    }
    if judged.baseline is not None:
        entry["baseline"] = labels[int(judged.baseline[row].argmax())]
    return entry


def error_table(model: ModelJudge, data: Labelled, judged: Judged, slices: Slices, suspects: np.ndarray) -> pa.Table:
    """Return one row for each wrong answer, the most confident first."""
    labels = pa.array(model.checkpoint.labels, pa.string())
    predicted = judged.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != data.truth)
    confidence = judged.probabilities[wrong, predicted[wrong]]
    order = np.argsort(-confidence, kind="stable")
    wrong, confidence = wrong[order], confidence[order]
    part = data.table.take(wrong)
    columns: dict[str, Any] = {
        **{name: part[name] for name in ("file", "row", "title", "text")},
        "label": labels.take(pa.array(data.truth[wrong])),
        "predicted": labels.take(pa.array(predicted[wrong])),
        "confidence": pa.array(confidence, pa.float32()),
        "label_probability": pa.array(judged.probabilities[wrong, data.truth[wrong]], pa.float32()),
        "suspected_label": pa.array(np.isin(wrong, suspects)),
        "slices": pa.array([slices.of_row(row) for row in wrong.tolist()], pa.list_(pa.string())),
        "category": part["category"],
        "stars": part["stars"],
    }
    if judged.baseline is not None:
        columns["baseline"] = labels.take(pa.array(judged.baseline[wrong].argmax(axis=1)))
    return pa.table(columns)


def write_errors(table: pa.Table, path: str) -> None:
    """Write the table of errors as one Parquet file that appears whole."""
    with locate(path).replacing() as stream:
        pq.write_table(table, stream, compression="zstd")
