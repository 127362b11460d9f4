# `make` shows what there is. Everything runs from .venv and node_modules, which `make setup` puts in place.
PYTHON ?= python3
BIN := .venv/bin

# The stamps say which locks are installed; a target that needs the tools depends on both.
PYTHON_READY := .venv/.ready
NODE_READY := node_modules/.ready
READY := $(PYTHON_READY) $(NODE_READY)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check model fuzz chaos soak docs bench contracts lock format clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## Install what is pinned into .venv and node_modules; nothing to do when nothing changed

demo: $(READY) ## Carry one change request the whole way in a local world (summary in var/demo.json)
	$(BIN)/countersign demo

# Three at a time on two cores: a third of the time a test waits for something.
test: $(READY) ## Run all tests, three at once; choose some with ARGS, as in make test ARGS="tests/unit -x -n 0"
	$(BIN)/pytest -n 3 $(ARGS)

check: $(READY) ## Lint, formatting, types, import contracts, and what is generated: docs, compiled contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	node sandbox/contracts/build.mjs --check
	$(BIN)/python -m scripts.generate_docs --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

model: $(READY) ## Let whatever can happen happen, 100,000 transitions of the store; ARGS="--model-seed 7" begins elsewhere
	$(BIN)/pytest -n 2 tests/store/model --transitions 100000 $(ARGS)

fuzz: $(READY) ## Let schemathesis loose on the running API; options in ARGS, as in make fuzz ARGS="--seed 1"
	$(BIN)/python -m scripts.fuzz $(ARGS)

chaos: $(READY) ## Let everything break while requests are on their way, SEED=1 as seed 1 did (summary in var/chaos.json)
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

MINUTES ?= 10
soak: $(READY) ## A constant load for MINUTES (10), and the memory of each process (summary in var/soak.json)
	$(BIN)/python -m tests.chaos soak --minutes $(MINUTES) $(ARGS)

docs: $(READY) ## Write the generated parts of docs/ and .env.example
	$(BIN)/python -m scripts.generate_docs

bench: $(READY) ## Run a benchmark of bench/, as in make bench BENCH=api
	@test -f "bench/$(BENCH).py" || { echo "make bench: name one with BENCH=: $(patsubst bench/%.py,%,$(wildcard bench/[a-z]*.py))" >&2; exit 2; }
	$(BIN)/python -m bench.$(BENCH)

contracts: $(NODE_READY) ## Compile the sandbox's Solidity contracts into their committed artifacts
	node sandbox/contracts/build.mjs
	node sandbox/contracts/build.mjs --check

UV_COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

lock: ## Bring requirements/*.lock in line with pyproject.toml (needs uv); UPGRADE=--upgrade takes newer versions
	@command -v uv >/dev/null || { echo "make lock: uv is not on PATH (pip install uv)" >&2; exit 2; }
	$(UV_COMPILE) $(UPGRADE) --extra tracing -o requirements/runtime.lock
	$(UV_COMPILE) $(UPGRADE) --extra tracing --extra sandbox --extra dev -o requirements/dev.lock

format: $(READY) ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

clean: ## Remove caches and var/; what is installed stays
	rm -rf var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find service workers migrations sandbox tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# Before anything is downloaded: is all there that the installation needs?
define CHECK_TOOLS
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "make setup: Python 3.11 or newer is needed; name one with PYTHON=, as in make setup PYTHON=python3.11" >&2; exit 2; }
@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || { \
	echo "make setup: Node.js 20 or newer is needed on PATH" >&2; exit 2; }
@command -v npm >/dev/null || { echo "make setup: npm is needed on PATH" >&2; exit 2; }
endef

# pip -qq: errors only.
$(PYTHON_READY): requirements/dev.lock pyproject.toml
	$(CHECK_TOOLS)
	@echo "Installing the Python packages of requirements/dev.lock into .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# `npm install`, not `npm ci`: a lock without addresses lacks the other platforms' optional packages, which the latter
# refuses. Integrity hashes are checked all the same.
$(NODE_READY): package.json package-lock.json .npmrc
	$(CHECK_TOOLS)
	@echo "Installing the Node packages of package-lock.json into node_modules ..."
	@npm install --no-save --no-progress --loglevel=error >/dev/null
	@touch $@
