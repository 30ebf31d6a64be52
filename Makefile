# Everything a newcomer needs: `make demo` and `make test` set up what they use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo run test chaos bench bench-litellm check fmt lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pollux needs Python 3.11 or newer; set PYTHON=/path/to/it"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# The main job, visible end to end; exits 0 only if all that it claims held.
demo: install
	$(BIN)/python deploy/demo.py

# The simulator and Pollux side by side, with three curl commands to try.
run: install
	$(BIN)/python deploy/demo.py --keep-running

test: install
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

# Kills, pauses and restarts everything under load, and proves that no promise is broken: ARGS="--jobs 500 --seed 1".
chaos: install
	$(BIN)/python -m tests.faults.chaos $(ARGS)

# What each piece of work costs, beside its target: ARGS="--runs 1 --only cached_50 polls".
bench: install
	$(BIN)/python -m tests.bench $(ARGS)

# The same work through LiteLLM's proxy, in a virtual environment of its own.
bench-litellm: install
	test -x .venv-litellm/bin/litellm || { $(PYTHON) -m venv .venv-litellm && .venv-litellm/bin/pip install --quiet 'litellm[proxy]==1.108.7'; }
	$(BIN)/python -m tests.bench.litellm .venv-litellm/bin/litellm

# The same checks, here and in CI.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs pip-tools on the PATH; the locks must not name a host. The image gets what is tested, without the tools.
lock:
	pip-compile --extra dev --generate-hashes --strip-extras --allow-unsafe --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.lock pyproject.toml
	pip-compile --constraint requirements.lock --generate-hashes --strip-extras --allow-unsafe --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o deploy/requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .venv-litellm .mypy_cache .ruff_cache .hypothesis
