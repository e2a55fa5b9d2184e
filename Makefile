# `make train` and `make test` do all the set-up that they need, once. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
LATEST ?= .venv-latest
METAWORLD ?= .venv-metaworld
NETHACK ?= .venv-nethack
MINEDOJO ?= .venv-minedojo
APPO ?= .venv-appo
LEROBOT ?= .venv-lerobot
EXTRAS ?= dev
CONSTRAINTS ?= --constraint constraints.txt
ARGS ?=

BIN := $(VENV)/bin
CHECK_OPENGL = $(BIN)/python -c 'from vlmrl.envs.gl import main; main()'
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help train test appo test-appo test-ray test-torchrl test-lerobot test-rerun test-browser test-judges test-metaworld test-nethack minedojo test-minedojo test-latest lint format setup setup-metaworld setup-nethack opengl clean

help:  ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: setup opengl  ## train the humanoid on words; ARGS="env=cartpole" changes settings
	$(BIN)/python -m vlmrl.train env=humanoid reward=clip $(ARGS)

test: setup opengl  ## run the tests; ARGS="-m slow" runs the slow ones
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-ray: setup opengl  ## install Ray as well and run what needs it: actors, machines that go away, relabel, vlmrl.serve
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev,ray]'
	$(BIN)/python -m pytest -n 0 -m 'slow or not slow' tests/serving/test_ray.py tests/workflows/serve \
		tests/workflows/relabel/test_ray_pass.py $(ARGS)

test-judges: setup opengl  ## install transformers as well: the local judge, and labels from its server, on tiny models
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev,judges]' 'transformers[serving]'
	$(BIN)/python -m pytest -n 0 tests/judges tests/reward_models/test_label_servers.py $(ARGS)

test-browser: setup opengl  ## the label page in Chromium; installs it where it is missing, as root on Debian
	@command -v chromium >/dev/null || [ -n "$$CHROMIUM" ] || { \
		line='apt-get update && apt-get install -y chromium'; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then DEBIAN_FRONTEND=noninteractive sh -c "$$line"; \
		else echo "Chromium is missing. Run, as root: $$line; or name its program: CHROMIUM=<path>"; exit 1; fi; }
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev,browser]'
	$(BIN)/python -m pytest -n 0 -m browser tests/workflows/label $(ARGS)

test-rerun: setup  ## install rerun as well and read what vlmrl.audit rrd=true writes
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev,rerun]'
	$(BIN)/python -m pytest -n 0 tests/workflows/audit/test_rrd.py $(ARGS)

test-metaworld: setup-metaworld  ## Meta-World's tasks and FrankaKitchen, in .venv-metaworld: they need an older MuJoCo
	$(METAWORLD)/bin/python -m pytest -n 2 tests/envs/test_all_environments.py tests/envs/test_metaworld.py \
		tests/envs/test_kitchen.py $(ARGS)

test-nethack: setup-nethack  ## NetHack and MiniHack, in .venv-nethack: they need an older Gymnasium
	$(NETHACK)/bin/python -m pytest -n 2 tests/envs/test_all_environments.py tests/envs/test_nethack.py \
		tests/envs/test_minigrid.py tests/agents/test_features.py tests/benchmarks/test_annotator.py $(ARGS)

test-minedojo: minedojo  ## Minecraft's engines as far as they go without a game, in .venv-minedojo
	$(MINEDOJO)/bin/python -m pytest -n 0 tests/envs/minecraft tests/envs/test_minedojo.py $(ARGS)

test-appo: appo  ## agent=appo in .venv-appo: training, resuming, workers that are killed
	$(APPO)/bin/python -m pytest -n 0 -m 'slow or not slow' tests/agents/appo $(ARGS)

test-torchrl: setup  ## compare the losses of iql with TorchRL's
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) torchrl
	$(BIN)/python -m pytest tests/agents/offline/test_losses.py -k torchrl

test-lerobot:  ## LeRobot reads what is written here and the other way round, in .venv-lerobot: it pins another torch
	@$(PYTHON) -m venv $(LEROBOT) && $(LEROBOT)/bin/python -m pip install --quiet 'lerobot>=0.4,<0.5'
	@$(MAKE) --no-print-directory VENV=$(LEROBOT) CONSTRAINTS= setup opengl
	HF_HUB_OFFLINE=1 $(LEROBOT)/bin/python -m pytest -n 0 tests/datasets/test_lerobot_package.py $(ARGS)

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

setup-metaworld:  ## make .venv-metaworld, which has Meta-World, FrankaKitchen and the MuJoCo that they ask for
	@mkdir -p $(METAWORLD) && grep -v '^mujoco' constraints.txt >$(METAWORLD)/constraints.txt
	@$(MAKE) --no-print-directory VENV=$(METAWORLD) EXTRAS=dev,kitchen,metaworld \
		CONSTRAINTS='--constraint $(METAWORLD)/constraints.txt' setup opengl

setup-nethack:  ## make .venv-nethack, which has NetHack, MiniHack and the Gymnasium that they ask for
	@mkdir -p $(NETHACK) && grep -v '^gymnasium==' constraints.txt >$(NETHACK)/constraints.txt
	@$(MAKE) --no-print-directory VENV=$(NETHACK) EXTRAS=dev,nethack \
		CONSTRAINTS='--constraint $(NETHACK)/constraints.txt' setup opengl

# sample-factory pins numpy below 2 and Gymnasium below 1, but runs with those of requirements-appo.txt: hence --no-deps.
appo:  ## make .venv-appo for agent=appo: sample-factory, NetHack, MiniHack and the numpy that they bear
	@mkdir -p $(APPO) && { grep -Ev '^(gymnasium|numpy)==' constraints.txt; grep '^numpy' requirements-appo.txt; } \
		>$(APPO)/constraints.txt
	@$(MAKE) --no-print-directory VENV=$(APPO) EXTRAS=dev,nethack \
		CONSTRAINTS='--constraint $(APPO)/constraints.txt' setup opengl
	$(APPO)/bin/python -m pip install --quiet --no-deps --requirement requirements-appo.txt

minedojo:  ## make .venv-minedojo for env=minedojo in a live game: MineDojo without its pins, and CraftGround
	@mkdir -p $(MINEDOJO)
	@$(MAKE) --no-print-directory VENV=$(MINEDOJO) EXTRAS=dev,craftground setup opengl
	$(MINEDOJO)/bin/python -m pip install --quiet --no-deps --requirement requirements-minedojo.txt

# Again only when what is to be installed has changed.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed, \
	this is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		line='apt-get update && apt-get install -y python3-venv'; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then DEBIAN_FRONTEND=noninteractive sh -c "$$line"; \
		else echo "Python cannot make environments here. On Debian or Ubuntu run, as root: $$line"; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
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
	rm -rf $(VENV) $(LATEST) $(METAWORLD) $(MINEDOJO) $(NETHACK) $(APPO) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
