# Everything happens in .venv, made from the lock files. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test lint bench fuzz openapi lock clean

# A stamp for what a user needs, one more for what a developer needs on top.
$(VENV)/.run: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --no-index --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	touch $@

# The daemon in the foreground, on the defaults plus deploy/demo/slabwatch.toml (storm and shrink allowed).
run: $(VENV)/.run
	exec $(BIN)/slabwatch --config deploy/demo/slabwatch.toml

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

# The same tests as in CI with many more inputs, then each parser under a coverage-guided fuzzer (FUZZ_SECONDS each).
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev
	SLABWATCH_FUZZ=20 $(BIN)/python -m pytest tests/fuzz
	$(BIN)/python -m tests.fuzz.guided all $(FUZZ_SECONDS)

# The published description of the control API; a test holds it against the code.
openapi: $(VENV)/.dev
	$(BIN)/python -m slabwatch.control.openapi >docs/openapi.json

# New versions of everything; look at the difference before it is committed.
lock: $(VENV)/.dev
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --extra build --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --extra dev --output-file requirements-dev.lock --constraint requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
