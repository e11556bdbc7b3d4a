"""Write examples/reviews.parquet from the review texts in examples/reviews/.

There is one JSON Lines file per product, with a date, a rating, a title and a text on each line; a title or a text may
be null. The rows are sorted by date and written in several row groups, so that the file looks like a (small) export of
a review database. Running the script twice with the same pyarrow release gives the same bytes.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
ROW_GROUP_SIZE = 150

SCHEMA = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("product", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("date", pa.date32(), nullable=False),
        pa.field("rating", pa.int8(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
    ]
)


class Product(NamedTuple):
    """A product of the (fictional) Brindlewick company and the name of the file with its reviews."""

    product_id: str
    product: str
    category: str
    file: str


PRODUCTS = (
    Product("0041-B", "Brindlewick Glass Kettle 1.7 L", "Kitchen", "kettle.jsonl"),
    Product("0107", "Brindlewick Whirl 900 Blender", "Kitchen", "blender.jsonl"),
    Product("0220-D", "Brindlewick 18 V Cordless Drill", "Tools", "drill.jsonl"),
    Product("00872", "Brindlewick Marble Run, 80 pieces", "Toys", "marble_run.jsonl"),
    Product("1305-M", "Brindlewick Owl Baby Monitor", "Baby", "baby_monitor.jsonl"),
    Product("2218-T", "Brindlewick Fellside Hiking Boots", "Outdoor", "hiking_boots.jsonl"),
    Product("3070-E", "Brindlewick Folio E-Reader", "Electronics", "e_reader.jsonl"),
    Product("3412-C", "Brindlewick Duo 30 W USB-C Charger", "Electronics", "phone_charger.jsonl"),
    Product("9001-N", "The Salt Ledger, a novel by Orla Venn (paperback)", "Books", "novel.jsonl"),
)


def read_reviews(product: Product) -> list[dict[str, Any]]:
    """Return the reviews of one product as rows of the table."""
    with open(HERE / "reviews" / product.file, encoding="utf-8") as lines:
        reviews = [json.loads(line) for line in lines]
    shared = {"product_id": product.product_id, "product": product.product, "category": product.category}
    return [{**shared, **review, "date": date.fromisoformat(review["date"])} for review in reviews]


def make_table() -> pa.Table:
    """Return all reviews, sorted by date; those of the same day stay in the order of the products and their files."""
    rows = [row for product in PRODUCTS for row in read_reviews(product)]
    rows.sort(key=lambda row: row["date"])
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def main() -> None:
    """Write the Parquet file next to this script."""
    table = make_table()
    path = HERE / "reviews.parquet"
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_SIZE)
    print(f"{path.name}: {table.num_rows} reviews of {len(PRODUCTS)} products")


if __name__ == "__main__":
    main()
