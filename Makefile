# Everything sets itself up: Python 3.11 or newer and make are all that is needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := .venv/.ready
# Set, it would have every process compile all of its imports anew, which takes as long as they do.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test tests lint docs bench lock clean

demo: $(READY)  ## meta-train on invented alphabets, then meet real digits
	$(BIN)/quickstudy demo

test: $(READY)  ## lint, types, tests, and every example of the README and the docs
	@$(MAKE) --no-print-directory --jobs 2 lint tests

tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## the documentation as a site: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"quickstudy needs Python 3.11 or newer, and {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	grep -v '^#' requirements.txt | xargs -P 2 -n 41 $(PIP) --no-compile --no-deps  # two at once
	$(PIP) --no-compile -r requirements.txt  # and what only this platform's wheels ask for
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

bench: $(READY)  ## ours against the peers, about ten minutes on a quiet machine
	$(BIN)/python benchmarks/performance.py

lock:  ## renew requirements.txt from pyproject.toml, in a fresh environment
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet hatchling editables '.[dev]' $$(grep '^torch==' requirements.txt)
	{ head -1 requirements.txt; .venv-lock/bin/python -m pip freeze --exclude quickstudy | sed 's/+cpu//'; } > requirements.new
	mv requirements.new requirements.txt && rm -rf .venv-lock

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
