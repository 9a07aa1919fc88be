# `make demo` trains and evaluates an agent; `make test` runs every check. Each makes its own virtual environment first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
EXTRAS ?= .venv-extras
DOCS ?= .venv-docs
OUT ?= runs/demo
# Links to every file instead of an import hook, so that type checkers find the packages too; a new file is a new install.
STATIC := --config-settings editable_mode=strict
FOLDERS := $(shell find metarl envs configs -type d -not -name __pycache__)

.PHONY: demo test fast extras docs lint install clean

# A strict install lives in build/: without it, install again.
ifeq ($(wildcard build/__editable__.*),)
.PHONY: $(BIN)/.installed $(EXTRAS)/bin/.installed $(DOCS)/bin/.installed
endif

install: $(BIN)/.installed

$(BIN)/.installed: setup.cfg pyproject.toml $(FOLDERS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]' $(STATIC)
	touch $@

demo: install
	$(BIN)/metarl train rl2/bernoulli-bandit --out $(OUT) --resume
	$(BIN)/metarl evaluate $(OUT) --tasks 10000 --against random,greedy,thompson,ucb1,gittins
	$(BIN)/metarl plot $(OUT)

test: lint
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m 'not long'

fast: install
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m 'not learning'

extras: $(EXTRAS)/bin/.installed
	$(EXTRAS)/bin/pytest --numprocesses 2 --dist loadfile tests/extras

$(EXTRAS)/bin/.installed: setup.cfg pyproject.toml $(FOLDERS)
	$(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/pip install --quiet --editable '.[test,metaworld,robotics,minigrid,rliable]' $(STATIC)
	touch $@

# Warnings are errors; links and anchors between pages are looked up.
docs: $(DOCS)/bin/.installed
	$(DOCS)/bin/sphinx-build --fail-on-warning --keep-going --quiet -c docs -d build/doctrees . build/site

$(DOCS)/bin/.installed: setup.cfg pyproject.toml $(FOLDERS)
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --editable '.[docs]' $(STATIC)
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(EXTRAS) $(DOCS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
