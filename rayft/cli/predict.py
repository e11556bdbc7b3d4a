"""`rayft predict`."""

from __future__ import annotations

import json
import sys

import click


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("-m", "--model", metavar="MODEL", help="Directory, Hub id or 'bundled' (the shipped model, default).")
@click.option("--max-length", type=click.IntRange(8), metavar="TOKENS", help="Longer reviews are cut. [default: 256]")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="Arithmetic of the model.")  # fmt: skip
@click.option("--engine-backend", type=click.Choice(["auto", "openvino", "torch"]), default="auto", show_default=True,
              help="Library that computes; auto takes OpenVINO on CPUs if rayft[fast] is installed.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Flag a defect from this probability on.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a review.")
def command(
    texts: tuple[str, ...],
    model: str | None,
    max_length: int | None,
    precision: str,
    engine_backend: str,
    threshold: float,
    as_json: bool,
) -> int:
    """Judge one or a few reviews from arguments or, one a line, from standard input.

    \b
    Examples:
      rayft predict "The lid cracked on the second day."
      head -5 reviews.txt | rayft predict --json
    """
    if not texts:
        if sys.stdin.isatty():
            raise click.UsageError('Give a text, e.g. rayft predict "The lid cracked.", or pipe one review a line.')
        texts = tuple(sys.stdin.buffer.read().decode("utf-8", "replace").splitlines())
    from rayft.score.scorer import Scorer

    _spare_pandas()
    scorer = Scorer(
        model, max_length=max_length, precision=precision, engine_backend=engine_backend, threshold=threshold
    )
    for text, row in zip(texts, scorer.score_texts(texts).to_pylist(), strict=True):
        if as_json:
            click.echo(json.dumps({"text": text, **row}, ensure_ascii=False))
            continue
        shown = text if len(text) <= 70 else text[:69] + "…"
        if row["label"] is None:
            click.echo(f"{'-':>10}          not scored: {row['score_note']}  {shown}")
        else:
            click.echo(f"{row['label']:>10}  {row['confidence']:6.1%}  {shown}")
    return 0


class _NoPandas:
    """A finder that has no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed", name=name)


def _spare_pandas() -> None:
    """Keep pyarrow from importing pandas, which takes longer than judging a review.

    pyarrow looks for pandas once, when it makes its first array, and again only where a frame is asked for.
    """
    import pyarrow as pa

    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(_NoPandas)
