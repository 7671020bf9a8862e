# Everything lives in a private environment in .venv and is installed as requirements.lock says, by hash.

PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11 python
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# The choice of an index for torch outlives the command, or the next `make` would undo it.
REMEMBERED := $(shell cat $(VENV)/torch-index 2>/dev/null)
TORCH_INDEX ?= $(REMEMBERED)

# A package index that is set for pip alone serves uv too.
ifeq ($(UV_DEFAULT_INDEX)$(UV_INDEX_URL),)
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX := $(PIP_INDEX_URL)
endif
endif

UV := $(BIN)/uv pip
INSTALL := --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help run demo-kafka serve ui test check fmt bench kafka setup lock clean

help:  ## this list
	@echo 'rewarm keeps models fresh. What can be made here:'
	@echo
	@awk -F ':.*## ' '/^[a-zA-Z%-]+:.*## / { sub("%", "NAME", $$1); printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'benches:' $(patsubst tests/bench/bench_%.py,%,$(sort $(wildcard tests/bench/bench_*.py)))
	@echo
	@echo 'The first command sets up .venv from the package index. On Linux torch brings its CUDA libraries,'
	@echo 'a download of about 3 GB; a build for the CPU alone is far smaller:'
	@echo '  make setup TORCH_INDEX=<address of an index with CPU wheels of torch>'
	@echo 'The choice holds until it is made again (TORCH_INDEX= for the locked one) or `make clean`.'

run: setup  ## the main job, to its end, with no server (FRESH=1 starts over)
	@$(BIN)/rewarm demo $(if $(FRESH),--fresh)

demo-kafka: kafka  ## the same through Kafka, on a broker of its own
	@$(BIN)/python -m tests.brokers.demo

serve: setup  ## the daemon that stays up
	@$(BIN)/rewarm serve

ui: setup  ## MLflow's pages on what was recorded
	@$(BIN)/rewarm ui

test: setup  ## every test (ARGS= goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

check: setup  ## lint, format, types and import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: setup  ## format, and repair what can be repaired safely
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

# KILLS=, SEED= and DATA= reach the bench by themselves: make exports what is given on its command line.
bench-%: setup  ## one bench; KILLS=, SEED= and DATA= are passed on
	@script=tests/bench/bench_$(subst -,_,$*).py; \
	test -f "$$script" || { echo "There is no $$script; 'make help' lists the benches." >&2; exit 2; }; \
	$(BIN)/python "$$script"

bench:
	@echo "Which one? 'make help' lists the benches, 'make bench-NAME' runs one." >&2; exit 2

kafka: setup  ## Apache Kafka's jars, for tests and benches (needs Java and Maven)
	@$(BIN)/python -m tests.brokers.jars

setup: $(READY)  ## the environment, made or brought up to date

lock: $(BIN)/uv  ## requirements.lock anew from pyproject.toml (UPGRADE=1 takes the newest versions)
	@$(UV) compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-header $(if $(UPGRADE),--upgrade) pyproject.toml --output-file requirements.lock

clean:  ## remove the environment and every cache; what rewarm has recorded stays
	@rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ifneq ($(strip $(TORCH_INDEX)),$(REMEMBERED))
.PHONY: $(READY)
endif

$(READY): requirements.lock pyproject.toml | $(BIN)/uv
ifeq ($(strip $(TORCH_INDEX)),)
	@echo 'Installing what requirements.lock says (on Linux the first time is a download of about 3 GB).'
	@$(UV) sync $(INSTALL) $(if $(REMEMBERED),--reinstall-package torch) --require-hashes requirements.lock
else
	@echo 'Installing what requirements.lock says, and torch from $(TORCH_INDEX).'
	@awk '/^[^ #]/ { keep = !/^(torch|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==/ } keep' requirements.lock >$(VENV)/no-torch.txt
	@$(UV) sync $(INSTALL) --require-hashes $(VENV)/no-torch.txt
	@$(UV) install $(INSTALL) --no-deps --default-index '$(TORCH_INDEX)' \
		"$$(awk '/^torch==/ { print $$1 }' requirements.lock)"
endif
	@$(UV) install $(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@echo '$(strip $(TORCH_INDEX))' >$(VENV)/torch-index
	@touch $@

# uv itself comes from the lock too: pip checks its hash.
$(BIN)/uv:
	@python=; \
	for candidate in $(PYTHON); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if test -z "$$python"; then \
		echo 'rewarm needs Python 3.11 or newer, and none of these is: $(PYTHON).' >&2; \
		echo 'Install one, or name it: make setup PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	@awk '/^[^ #]/ { keep = /^uv==/ } keep' requirements.lock >$(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.txt
