# They set up what they need in .venv, once, pinned by constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test check docs clean

demo: .venv/demo-is-installed
	$(BIN)/flowbrush train emoji
	$(BIN)/flowbrush evaluate runs/emoji --kinds en ja de fr es zh ko
	$(BIN)/flowbrush sample runs/emoji "a fox" "バナナ" "a red apple" "ロケット" --out fox.png
	@echo 'now try: $(BIN)/flowbrush sample runs/emoji "a fox" "バナナ" --out fox.png'

docs: .venv/dev-is-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: .venv/dev-is-installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0

check: .venv/dev-is-installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Flowbrush needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo-is-installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) '.[emoji]'
	@touch $@

.venv/dev-is-installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) '.[dev]'
	@touch $@ .venv/demo-is-installed

clean:
	rm -rf .venv
