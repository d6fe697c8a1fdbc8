# The words of the README and of CI. Nothing has to be done before any of them: what a target needs, it makes.
#   VENV=…     where the virtual environment is (default .venv)
#   PYTHON=…   the Python it is made with (default python3; 3.11 or newer)
#   ARGS=…     further arguments for pytest
#   BROKER=…   the major version of RabbitMQ beside tests, demonstration and chaos run: 3 or 4 (default: what is there)
# AUTOTAG_CACHE_DIR and PIP_CACHE_DIR move the caches of models and packages.

VENV ?= .venv
PYTHON ?= python3
EVENTS ?= 10000
SEED ?= 1

ifdef BROKER
export AUTOTAG_TEST_BROKER := $(BROKER)
endif

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WITH_BROKER := $(BIN)/python scripts/private_broker.py run --

# Built before the tests begin, so that no test has to wait for it.
TESTED_MODELS := efficientnet-lite0 efficientnet-lite2 efficientnet-lite2-float
BUILD_MODELS = for model in $(TESTED_MODELS); do $(BIN)/autotag model build $$model >/dev/null || exit; done

# Files made from the code and checked in: each command fails, and says how to make it again, when its file is out of date.
GENERATED := "schema --check" "config reference --check"

.DEFAULT_GOAL := help
.PHONY: help setup demo test broker lint faults chaos bench lock dist clean
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make the virtual environment and install Autotag and its tools into it
	@:

$(INSTALLED): pyproject.toml constraints.txt scripts/make_environment.sh
	@scripts/make_environment.sh "$(VENV)" "$(PYTHON)"
	@touch $@

demo: setup ## tag five photographs: broker, model and service, end to end
	@$(WITH_BROKER) $(BIN)/python scripts/demo.py

test: setup ## run all tests beside a broker; ARGS="-k word" runs some, BROKER=4 beside that version
	@scripts/install_tools.sh
	@$(BUILD_MODELS)
	@$(WITH_BROKER) $(BIN)/python -m pytest -m "not slow_fault" $(ARGS)

broker: setup ## see whether a RabbitMQ can be had, of the version BROKER; what it takes is kept
	@$(WITH_BROKER) true

lint: setup ## check style, types, the direction of imports, and that generated files are current
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@deploy/check.sh
	@for command in $(GENERATED); do $(BIN)/autotag $$command || exit; done

faults: setup ## break everything, one thing after the other, and count every event
	@$(BUILD_MODELS)
	@$(WITH_BROKER) $(BIN)/python -m pytest tests/faults $(ARGS)

chaos: setup ## kill at random under load and compare event ids; EVENTS=10000 SEED=1 JSON=1
	@$(BIN)/python scripts/chaos.py --events $(EVENTS) --seed $(SEED) $(if $(JSON),--json)

bench: setup ## measure speed and memory; QUICK=1 for a short look
	@$(WITH_BROKER) $(BIN)/python bench/run.py $(if $(QUICK),--quick)

lock: ## write constraints.txt again, with the newest versions that pyproject.toml allows
	@scripts/write_constraints.sh "$(PYTHON)"

dist: setup ## build wheel, sdist, SBOM and checksums from the last commit into dist/, and try the installed wheel
	@scripts/make_distribution.sh "$(VENV)"

clean: ## remove the virtual environment and what the tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
