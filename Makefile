# `make train` and `make test` do all the set-up that they need, once. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
LATEST ?= .venv-latest
CONSTRAINTS ?= --constraint constraints.txt
ARGS ?=

BIN := $(VENV)/bin
CHECK_OPENGL = $(BIN)/python -c 'from vlmrl.envs.gl import main; main()'
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help train test test-latest lint format setup opengl clean

help:  ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: setup opengl  ## train the humanoid on words; ARGS="env=cartpole" changes settings
	$(BIN)/python -m vlmrl.train env=humanoid reward=clip $(ARGS)

test: setup opengl  ## run the tests; ARGS="-m slow" runs the slow ones
	$(BIN)/python -m pytest -n 2 $(ARGS)

# What a newer release breaks should be known, and should stop nobody: this ends well whatever comes out.
test-latest:  ## run the tests with the newest releases of everything; reports, and never fails
	@rm -rf $(LATEST)
	@again='$(MAKE) --no-print-directory VENV=$(LATEST) CONSTRAINTS='; \
	if ! $$again setup opengl; then verdict='they CANNOT BE INSTALLED'; \
	elif $$again test; then verdict='the tests PASS'; else verdict='the tests FAIL'; fi; \
	echo; echo 'Not as in constraints.txt:'; \
	{ $(LATEST)/bin/python -m pip freeze --exclude-editable 2>/dev/null || echo '(no environment)'; } \
		| grep -vxFf constraints.txt || echo '(nothing)'; \
	echo "With the newest releases, $$verdict."

lint: setup  ## check style, types and the floors of the house
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## bring the code into form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

setup: $(VENV)/installed  ## make .venv and install the suite into it

# Again only when what is to be installed has changed.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed, \
	this is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		line='apt-get update && apt-get install -y python3-venv'; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then DEBIAN_FRONTEND=noninteractive sh -c "$$line"; \
		else echo "Python cannot make environments here. On Debian or Ubuntu run, as root: $$line"; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

opengl: $(VENV)/opengl

# Pictures are drawn without a display. The check itself says what to install where it fails.
$(VENV)/opengl: $(VENV)/installed
	@$(CHECK_OPENGL) || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1; \
		line="$$($(BIN)/python -c 'from vlmrl.envs.gl import INSTALL_LINE; print(INSTALL_LINE)')"; \
		echo "Installing: $$line"; \
		DEBIAN_FRONTEND=noninteractive sh -c "$$line" && $(CHECK_OPENGL); }
	@touch $@

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(LATEST) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
