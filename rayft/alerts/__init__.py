"""Early warnings from scored reviews: which product's share of defect reports rose, since when, on what evidence.

- `columns`: which columns hold product, date, category, text
- `extract`: a scored Parquet file -> the few columns that alerts need, quotes redacted
- `dedupe`: near-duplicate reviews of a product become one
- `counts`: reviews and reports per product and period
- `baseline`: what is normal: category priors, correction for the classifier's errors
- `blocks`: category priors and usual volumes, renewed every few weeks
- `cusum`: the chart that watches the share
- `thresholds`: where it raises the alarm, from simulated run lengths
- `control`: what service complaints share of a rise
- `fdr`: how many of the alerts may be false
- `detect`: the charts of a whole catalogue -> alarms
- `receipts`: alarms -> receipts with counts, statistics and quotes
- `state`: what is kept between nightly runs
- `page`: the page to read
- `run`: all of it, for `rayft alerts`
"""
