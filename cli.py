"""Run rayft out of a source tree or an uploaded working directory: `python cli.py score reviews.parquet`."""

from rayft.cli import main

if __name__ == "__main__":
    main()
