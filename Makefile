# The house in five words: make setup | demo | test | lint | types (and clean). `make` alone says so.
# Everything runs in .venv, which `setup` builds once per content of pyproject.toml and constraints.txt.

PYTHON ?= $(firstword $(foreach p,python3.11 python3 python3.12 python3.13,$(if $(shell $(p) -c \
            'import sys; print("ok" * (sys.version_info >= (3, 11)))' 2>/dev/null),$(p))))
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP  := $(VENV)/.stamp-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
CODE   := src tests $(wildcard recipes examples benchmarks)
DEMO   ?= demo
ARGS   ?=

# More threads than cores make small tensors slower; whoever knows better sets the variable.
export OMP_NUM_THREADS ?= 2

.PHONY: help setup demo test lint types clean
.DEFAULT_GOAL := help

help:  ## say what there is
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## build .venv with every dependency (done once; repeated when the requirements change)

$(STAMP):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): torch first (by its pin), then patchforest with the extras train, wsi, volumes, cluster, backbones, medical and dev"
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[train,wsi,volumes,cluster,backbones,medical,dev]'
	@$(BIN)/patchforest doctor > /dev/null  # compiles the kernels, once
	@rm -f $(VENV)/.stamp-* && touch $@

demo: setup  ## make a data set, train adaptive and uniform twins, segment unseen slices, write demo/report.html
	$(BIN)/patchforest demo --out $(DEMO) $(ARGS)

test: setup  ## the whole test suite; one room: make test ARGS=tests/tree
	$(BIN)/python -m pytest $(ARGS)

lint: setup  ## ruff: rules and formatting
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: setup  ## mypy on src
	$(BIN)/mypy

clean:  ## remove what make built: environment, caches, demo
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
