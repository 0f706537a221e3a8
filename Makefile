# Everything sets itself up: Python 3.11 or newer and make are all that is needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := .venv/.ready
GUARDS := fastapi|starlette|uvicorn|prometheus-client|pydantic|pydantic-core|numpy|scipy|scikit-learn|pillow|safetensors|lightning-fabric|pooch|requests|typer|rich
HASHED := --quiet --generate-hashes --no-header --no-annotate
JOINED := sed -e ':a' -e '/\\$$/N; s/ *\\\n */ /; ta'  # a line a package
# Set, it would have every process compile all of its imports anew, which takes as long as they do.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test tests lint minimum docs bench lock clean

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

minimum: $(READY)  ## what guards against strangers, with the oldest packages that are allowed
	$(PIP) --no-compile --no-deps --upgrade --target .venv/minimum --require-hashes -r requirements-minimum.txt
	PYTHONPATH=.venv/minimum OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/app/test_attacks.py tests/data/test_folder.py -k "not health"

docs: $(READY)  ## the documentation as a site: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site

$(READY): requirements.txt requirements-hashes.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"quickstudy needs Python 3.11 or newer, and {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	grep -v '^#' requirements-hashes.txt | split -l 81 - .venv/part-
	{ ls .venv/part-* | sed 's/^/--require-hashes -r /'; grep '^torch==' requirements.txt; } | xargs -P 3 -L 1 $(PIP) --no-compile --no-deps  # side by side
	$(PIP) --no-compile -r requirements.txt  # and what only this platform's wheels ask for
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

bench: $(READY)  ## ours against the peers and all of docs/performance.md: half an hour of a quiet machine
	@$(BIN)/python benchmarks/all.py $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(OMNIGLOT),--omniglot $(OMNIGLOT))

lock:  ## renew requirements*.txt from pyproject.toml, in a fresh environment
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet hatchling editables '.[dev]' $$(grep '^torch==' requirements.txt)
	{ head -1 requirements.txt; .venv-lock/bin/python -m pip freeze --exclude quickstudy | sed 's/+cpu//'; } > requirements.new
	.venv-lock/bin/python -m pip install --quiet uv && grep '^torch==' requirements.new > .venv-lock/torch.txt
	{ echo "# The oldest that pyproject.toml allows, of what guards against strangers; made by: make lock"; .venv-lock/bin/uv pip compile $(HASHED) --resolution lowest-direct --override .venv-lock/torch.txt --extra app --extra photo pyproject.toml | $(JOINED) | grep -E '^($(GUARDS))=='; } > requirements-minimum.txt
	mv requirements.new requirements.txt
	{ echo "# Of every file of those in requirements.txt, but torch's, which differ from index to index; made by: make lock"; grep -v '^torch==' requirements.txt | .venv-lock/bin/uv pip compile $(HASHED) --no-deps - | $(JOINED); } > requirements-hashes.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
