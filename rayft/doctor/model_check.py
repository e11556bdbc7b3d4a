"""Whether a model can be read and gives an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rayft.doctor.check import Check, one_line

_TEXT = "The lid cracked on the second day."


def checks(model: str | None, quick: bool) -> Iterator[Check]:
    """Yield the checks of a model; `quick` leaves its weights alone."""
    from rayft.errors import RayftError
    from rayft.model.checkpoint import load_checkpoint

    try:
        checkpoint = load_checkpoint(model)
    except (RayftError, OSError, ValueError, KeyError) as error:
        yield Check("model", "error", one_line(error), "Give --model a Hugging Face directory, or leave it out.")
        return
    finding = f"{checkpoint.name} ({checkpoint.digest[:8]}), labels {', '.join(checkpoint.labels)}"
    if checkpoint.negative_index(None) is None:
        yield Check("model", "warn", f"{finding}; none means negative", "Name the one that does with --negative-label.")
    else:
        yield Check("model", "ok", finding)
    if not quick:
        yield _prediction(model)


def _prediction(model: str | None) -> Check:
    from rayft.score.scorer import Scorer

    started = time.perf_counter()
    try:
        row = Scorer(model).score_texts([_TEXT]).to_pylist()[0]
    except Exception as error:  # whatever a library makes of broken weights
        return Check("prediction", "error", one_line(error), "Fetch or train the model again; its weights do not load.")
    seconds = time.perf_counter() - started
    if row["label"] is None or not 0.0 <= row["confidence"] <= 1.0:
        return Check("prediction", "error", f"no label for a plain review ({row})", "The weights hold no numbers.")
    return Check("prediction", "ok", f"{row['label']} with {row['confidence']:.0%}, {seconds:.1f} s with loading")
