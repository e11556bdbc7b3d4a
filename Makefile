# Set-up happens by itself, once, in .venv; the stamp files there say what has been installed.

PYTHON ?= python3
PIP := .venv/bin/python -m pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help score test lint bench soak constraints build-model clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

score: .venv/.score-stamp ## Score the example reviews into runs/reviews.scored.parquet
	@rm -rf runs/reviews.scored.parquet runs/reviews.scored.parquet.rayft
	.venv/bin/rayft score examples/reviews.parquet --output runs/reviews.scored.parquet

test: lint ## Lint, then run the test suite
	.venv/bin/python -m pytest

lint: .venv/.dev-stamp ## Check style, formatting and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

soak: .venv/.dev-stamp ## Run the long rehearsals that `make test` leaves out
	.venv/bin/python -m pytest -m soak --timeout 3600

bench: .venv/.score-stamp ## Measure scoring throughput on this machine
	.venv/bin/python benchmarks/score.py

build-model: .venv/.build-stamp ## Rebuild the shipped model: make build-model DATA=folder-of-reviews
	@test -d "$(DATA)" || { echo "name the folder of review data: make build-model DATA=folder" >&2; exit 2; }
	.venv/bin/python jobs/build_model.py "$(DATA)" --output runs/reviews-minilm

# Keeps the versions that still fit; `make constraints UV_ARGS=--upgrade` takes the newest of everything.
constraints: | .venv/bin/python ## Resolve pyproject.toml and constraints.in into constraints.txt
	@test -x .venv/bin/uv || $(PIP) install -q "uv>=0.13"
	.venv/bin/uv pip compile pyproject.toml --constraints constraints.in --all-extras \
		--universal --python-version 3.11 --fork-strategy fewest --no-config --quiet \
		--annotation-style line --custom-compile-command "make constraints" \
		$(UV_ARGS) --output-file constraints.txt

clean: ## Remove caches and build output; keeps .venv and runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

.venv/bin/python:
	@for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -m venv .venv && exit 0; \
		rm -f .venv/bin/python; \
		echo "$$python cannot create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; \
	done; \
	echo "rayft needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>/dev/null || echo "not found")." >&2; \
	echo "Choose another: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

.venv/.score-stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv (about a minute, once) …"
	@$(PIP) install -q -c constraints.txt -e ".[fast]"
	@touch $@

.venv/.dev-stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv with the development tools (about a minute, once) …"
	@$(PIP) install -q -c constraints.txt -e ".[fast,dev]"
	@touch .venv/.score-stamp $@

.venv/.build-stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setting up .venv with the base model (about two minutes, once) …"
	@$(PIP) install -q -c constraints.txt -e ".[fast,build]"
	@touch .venv/.score-stamp $@
