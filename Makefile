# Everything happens in .venv, made from the lock files. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test test-system lint bench scaling fuzz vm vm-parts vm-short docs pictures deb test-packages lock clean

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

# What checks the packages, in a venv of its own: none of it is needed to run or to change slabwatch.
$(VENV)/.tools: tests/packages/tools.lock
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r tests/packages/tools.lock
	touch $@

# The daemon in the foreground, on the defaults plus deploy/demo/slabwatch.toml (storm and shrink allowed).
run: $(VENV)/.run
	exec $(BIN)/slabwatch --config deploy/demo/slabwatch.toml

test: lint
	$(BIN)/python -m pytest -m "not system"

# The doors under attack, ssh, TLS, fleets, real Prometheus and Alertmanager, memory pressure: ten minutes more. As root.
test-system: $(VENV)/.dev
	$(BIN)/python -m pytest -m system tests/e2e

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

# docs/scaling.md: series and cost of a host, and what a real Prometheus takes for many. Five minutes, root, prometheus.
scaling: $(VENV)/.dev
	$(BIN)/python -m tests.bench.scaling

# Real kernels in virtual machines: all of them, and the page in docs/; or two, one of them under systemd. As root.
vm: $(VENV)/.dev
	$(BIN)/python -m tests.vm matrix

# What they boot: downloaded and built once. vm-short does it too where it has not been done.
vm-parts: $(VENV)/.dev
	$(BIN)/python -m tests.vm prepare --short

vm-short: $(VENV)/.dev
	$(BIN)/python -m tests.vm matrix --short --settle 15

# All that is made from declarations: rules, dashboards, the API's description, the example configuration, man pages,
# docs/metrics.md, the manifests. Tests say when one of them is old.
docs: $(VENV)/.dev
	$(BIN)/python -m deploy.prometheus.rules
	$(BIN)/python -m deploy.grafana.source deploy/grafana/dashboards
	$(BIN)/python -m slabwatch.control.openapi >docs/openapi.json
	$(BIN)/slabwatch --example-config >config.example.toml
	$(BIN)/python -m tests.generate

# docs/dashboards: drawn from the dashboards' own queries after two storms. Five minutes, root, prometheus.
pictures: $(VENV)/.dev
	$(BIN)/python -m tests.pictures

# A Debian package for this distribution's own Python, in dist/.
deb: $(VENV)/.run
	BUILD=$(BIN)/python deploy/debian/build.sh

# Builds and installs the packages for real, in a Debian of its own: root, mmdebstrap, a package mirror; minutes.
test-packages: $(VENV)/.dev $(VENV)/.tools
	SLABWATCH_TEST_PACKAGES=1 $(BIN)/python -m pytest tests/packages

# The same tests as in CI with many more inputs, then each parser under a coverage-guided fuzzer (FUZZ_SECONDS each).
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev
	$(PIP) install --quiet --require-hashes -r tests/fuzz/tools.lock
	SLABWATCH_FUZZ=20 $(BIN)/python -m pytest tests/fuzz
	$(BIN)/python -m tests.fuzz.guided all $(FUZZ_SECONDS)

# New versions of everything; look at the difference before it is committed.
lock: $(VENV)/.dev
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --extra build --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --extra dev --output-file requirements-dev.lock --constraint requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --output-file tests/packages/tools.lock tests/packages/tools.in
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --output-file tests/fuzz/tools.lock tests/fuzz/tools.in

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
