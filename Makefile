# Everything works as an ordinary user, in .venv, with Python 3.11 or newer and make. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
WORKERS := -n logical --maxprocesses 4  # laws are spread over them; drills come last, one at a time
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.PHONY: help demo test test-cluster check format bench detect kill-sweep kill-sweep-cluster base-image image cluster lock clean

help: ## say what there is
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: $(RUN) ## set everything up, then lose a region under load: about a minute and a half
	@$(BIN)/stormdrill run experiments/region-loss.yaml

test: $(DEV) ## set everything up and run the tests; what was left out is said at the end
	@$(BIN)/python -m pytest $(WORKERS) $(PYTEST)

test-cluster: $(DEV) ## hold the cluster of STORMDRILL_TEST_KUBECONFIG to the laws that the fake one keeps
	@test -n "$${STORMDRILL_TEST_KUBECONFIG:-}" || { echo "name a kubeconfig in STORMDRILL_TEST_KUBECONFIG; see CONTRIBUTING.md" >&2; exit 2; }
	@test -r "$${STORMDRILL_TEST_KUBECONFIG}" || { echo "STORMDRILL_TEST_KUBECONFIG: $$STORMDRILL_TEST_KUBECONFIG can't be read" >&2; exit 2; }
	@test -n "$${STORMDRILL_TEST_IMAGE:-}" || { echo "name the image of make image, as the cluster's nodes have it, in STORMDRILL_TEST_IMAGE" >&2; exit 2; }
	@$(BIN)/python -m pytest tests/contract -m cluster -rsP --timeout 900 $(PYTEST)

check: $(DEV) ## format, lint, types, import contracts, dead code, docs
	@$(BIN)/python dev/check.py

format: $(DEV) ## put the code into its one format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(DEV) ## measure the figures that are promised; writes build/bench.json
	@$(BIN)/python -m bench

detect: $(DEV) ## every resilience bug must be caught, the sound platform never: at most two hours; DETECT="--resume"
	@$(BIN)/python -m bench.detect $(DETECT)

kill-sweep: $(DEV) ## kill runner, keeper and both, over a thousand times: about half an hour
	@$(BIN)/python tests/real/killing_sweep.py $(SWEEP)

kill-sweep-cluster: $(DEV) ## kill runner and watchdog at every change on a pretended cluster, 330 times: about half an hour
	@$(BIN)/python tests/real/killing_cluster.py 330

base-image: ## make stormdrill-base:bookworm for --target docker from Debian packages, where no registry is reached
	@bash dev/base-image.sh

cluster: $(DEV) ## a pretended cluster with the reference platform in it, to try --target kubernetes on; until Ctrl-C
	@$(BIN)/python dev/cluster.py

image: $(RUN) ## build the image of the reference platform ahead of the first run in containers
	@$(BIN)/python -m stormdrill.targets.docker.image

$(VENV)/.python: ## the environment itself, from a Python that is new enough
	@bash dev/venv.sh $(VENV)
	@touch $@

$(RUN): $(VENV)/.python requirements.lock pyproject.toml
	@echo "installing stormdrill into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "installing what tests and checks need …"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

COMPILE = $(BIN)/uv pip compile --quiet --universal --no-header --no-annotate \
	--generate-hashes --python-version 3.11 pyproject.toml

lock: $(DEV) ## resolve the dependencies anew
	@$(PIP) install uv
	@$(COMPILE) --upgrade --extra docker --extra kubernetes --group build -o requirements.lock
	@$(COMPILE) --upgrade --extra docker --extra kubernetes --group dev -c requirements.lock -o requirements-dev.lock

clean: ## remove what was built; runs/ stays
	@rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
