# The front door. `make demo` and `make test` need nothing but Python and make; they build .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
CHECK_STAMP := $(VENV)/.installed-check
# Another package index, for a build of torch that PyPI lacks; and the program that installs, else uv or pip as found.
export TORCH_INDEX ?=
export INSTALLER ?=
PYTEST_ARGS ?=
PYTEST_WORKERS ?= auto
PYTEST = $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup --no-loadscope-reorder --durations 10
WHEEL_ARGS ?=

export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# What each target uses beside a sweep's own packages: one stamp each, renewed when the packages change.
$(STAMP): pyproject.toml constraints.txt
	@sh infra/environment.sh '$(PYTHON)' '$(VENV)'
	@touch $@

$(TEST_STAMP): $(STAMP)
	@sh infra/environment.sh '$(PYTHON)' '$(VENV)' test,export,s3-test
	@touch $@

$(CHECK_STAMP): $(STAMP)
	@sh infra/environment.sh '$(PYTHON)' '$(VENV)' check
	@touch $@

test test-all bench chaos: $(TEST_STAMP)
check format vit-defaults: $(CHECK_STAMP)

.PHONY: env
env: $(STAMP) ## Make the environment of a sweep in .venv

.PHONY: demo
demo: $(STAMP) ## Environment, then the main job: sweep mask geometries on the embedded scenes (about 8 minutes on 2 cores)
	$(BIN)/orchestrator sweep sweeps/masks.yaml

.PHONY: test
test: $(STAMP) ## Environment, then the test suite, as CI runs it: one process a core (PYTEST_WORKERS=N for another number)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

.PHONY: test-all
test-all: $(STAMP) ## The test suite with the slow tests and all examples of the property tests
	$(PYTEST) --hypothesis-profile nightly $(PYTEST_ARGS)

.PHONY: check
check: $(STAMP) ## Lint, format check, types, import layers, manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python infra/validate.py

.PHONY: wheel
wheel: $(STAMP) ## Build wheel and source archive into dist/, look into them, and run a small sweep with the wheel
	$(BIN)/python infra/check_wheel.py $(WHEEL_ARGS)

.PHONY: format
format: $(STAMP) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(STAMP) ## Regenerate docs/configuration.md
	$(BIN)/orchestrator config reference > docs/configuration.md

.PHONY: vit-defaults
vit-defaults: $(STAMP) ## Regenerate jepa_core/vit_table.py from the timm that is installed
	$(BIN)/python -m jepa_core.vit_defaults
	$(BIN)/ruff format --quiet jepa_core/vit_table.py

.PHONY: bench
bench: $(STAMP) ## Run the benchmarks; each prints what it is compared with and the ratio
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

.PHONY: gpu
gpu: ## GPU tests and benchmarks of jepa_core; installs nothing (PYTHON needs torch, timm, numpy, pytest, hypothesis)
	@$(PYTHON) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'make gpu: torch finds no CUDA device')"
	PYTHONPATH=.:tests $(PYTHON) -m pytest -c tests/gpu.ini --rootdir . --noconftest tests/jepa_core
	@for name in step ema optimizer masks; do echo "== $$name"; PYTHONPATH=. $(PYTHON) benchmarks/$$name.py || exit 1; done

.PHONY: chaos
chaos: $(STAMP) ## Nodes, heads and 30 random processes of a sweep killed, and what is left checked (as root, about 20 minutes)
	$(BIN)/python tests/chaos/two_nodes.py
	$(BIN)/python tests/chaos/lost_head.py
	$(BIN)/python tests/chaos/kills.py

.PHONY: clean
clean: ## Remove the environment and caches; runs/ is kept
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
