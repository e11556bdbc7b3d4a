"""What the user asked of `rayft alerts`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AlertsConfig:
    """`rayft alerts`.

    Attributes:
        inputs: scored Parquet: files, directories, globs, local or in object stores.
        output: the folder for alerts.parquet, alerts.json and alerts.html.
        product_column: and the other columns: None finds them by common names.
        period: `day` or `week`: how often the charts are looked at.
        sensitivity: share of true defect reports that the classifier flags.
        specificity: share of other reviews that it leaves alone.
        type_accuracy: share of flagged true defects that get the right type.
        rise: the charts look for the share growing by this factor (after correction) ...
        min_rise: ... and by at least this much, as a share of reviews.
        false_alarms: expected per 1,000 product-months, all charts of a product together, safety apart.
        safety_false_alarms: the same for the safety chart.
        fdr: false-discovery level among the products that have an alert on a day.
        dedupe: count near-duplicate reviews of a product once.
        negative_label: label of negative reviews, for the negative control; `negative` by default.
    """

    inputs: tuple[str, ...]
    output: str
    product_column: str | None = None
    date_column: str | None = None
    category_column: str | None = None
    text_column: str | None = None
    id_column: str | None = None
    period: str = "day"
    sensitivity: float = 0.85
    specificity: float = 0.95
    type_accuracy: float = 0.75
    rise: float = 2.0
    min_rise: float = 0.04
    false_alarms: float = 5.0
    safety_false_alarms: float = 10.0
    fdr: float = 0.1
    dedupe: bool = True
    negative_label: str | None = None
