# The words of the README and of CI. Nothing has to be done before any of them: what a target needs, it makes.
#   VENV=…     where the virtual environment is (default .venv)
#   PYTHON=…   the Python it is made with (default python3; 3.11 or newer)
#   ARGS=…     further arguments for pytest
#   JOBS=…     how many processes the test suite runs in (default 2; 0: in one, which begins sooner)
#   BROKER=…   the major version of RabbitMQ beside tests, demonstration and chaos run: 3 or 4 (default: what is there)
# AUTOTAG_CACHE_DIR and PIP_CACHE_DIR move the caches of models and packages.

VENV ?= .venv
PYTHON ?= python3
EVENTS ?= 10000
FILES ?= 10000
SECONDS ?= 600
SEED ?= 1
JOBS ?= 2

ifdef BROKER
export AUTOTAG_TEST_BROKER := $(BROKER)
endif

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WITH_BROKER := $(BIN)/python scripts/private_broker.py run --

# Built before the tests begin, so that no test has to wait for it.
TESTED_MODELS := efficientnet-lite0 efficientnet-lite1 efficientnet-lite2 efficientnet-lite2-float
# The detector's weights have to be fetched: where they cannot be, the tests that want it are skipped.
BUILD_MODELS = for model in $(TESTED_MODELS); do $(BIN)/autotag model build $$model >/dev/null || exit; done; \
	$(BIN)/autotag model build nanodet >/dev/null || echo "tests: without the detector" >&2

# Besides those of tests/systems: what `make test` skips where the stores are not installed
ON_REAL_SYSTEMS := tests/systems tests/integration/test_s3_objects.py tests/integration/test_connect_s3.py \
	tests/integration/test_connect_bucket.py

# Files made from the code and checked in: each command fails, and says how to make it again, when its file is out of date.
GENERATED := "schema --check" "config reference --check"

.DEFAULT_GOAL := help
.PHONY: help setup demo test integrations broker lint docs faults alerts chaos bench fuzz hostile lock dist clean
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
	@$(WITH_BROKER) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow_fault" $(ARGS)

broker: setup ## see whether a RabbitMQ can be had, of the version BROKER; what it takes is kept
	@$(WITH_BROKER) true

lint: setup ## check style, types, the direction of imports, and that generated files are current
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@deploy/check.sh
	@for command in $(GENERATED); do $(BIN)/autotag $$command || exit; done

integrations: setup ## connect real systems (Mayan EDMS, SeaweedFS, moto, Ceph): what was uploaded, and which tags stand there
	@$(BUILD_MODELS)
	@env $$($(BIN)/python -m tests.systems.programs) $(WITH_BROKER) $(BIN)/python -m pytest $(ON_REAL_SYSTEMS) $(ARGS)
docs: setup ## build the documentation site into build/site, and fail at a link that leads nowhere
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # not --quiet: a warning that is not written does not fail it
	@echo "docs: build/site/index.html"

faults: setup ## break everything, one thing after the other, and count every event
	@$(BUILD_MODELS)
	@$(WITH_BROKER) $(BIN)/python -m pytest tests/faults $(ARGS)

chaos: setup ## kill at random under load and compare event ids; EVENTS=10000 SEED=1 JSON=1
	@$(BIN)/python scripts/chaos.py --events $(EVENTS) --seed $(SEED) $(if $(JSON),--json)

alerts: setup ## bring services into every state that an alert is for, and see it fire in a real Prometheus
	@scripts/install_tools.sh prometheus promtool
	@$(BUILD_MODELS)
	@$(WITH_BROKER) $(BIN)/python -m pytest tests/alerts $(ARGS)

bench: setup ## measure speed and memory; QUICK=1 for a short look
	@$(WITH_BROKER) $(BIN)/python bench/run.py $(if $(QUICK),--quick)

fuzz: setup ## fuzz all that reads untrusted input; SECONDS=600, TARGET=one of them
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements/fuzz.txt
	@$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET))

hostile: setup ## send hostile files through a service among good ones; FILES=10000 SEED=1
	@$(WITH_BROKER) $(BIN)/python -m tests.hostile.run --files $(FILES) --seed $(SEED)

lock: ## write constraints.txt and requirements/ again, with the newest versions that pyproject.toml allows
	@scripts/write_constraints.sh "$(PYTHON)"

dist: setup ## build wheel, sdist, data wheels, SBOMs and checksums from the last commit into dist/, and try what is installed
	@scripts/make_distribution.sh "$(VENV)"

clean: ## remove the virtual environment and what the tools left behind
	rm -rf $(VENV) .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
