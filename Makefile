# Everything a newcomer needs: `make demo` and `make test` set up what they use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
UV     := .venv-uv/bin/uv

.PHONY: browser-test describe-test install demo run test image image-test chaos soak fuzz bench bench-litellm check audit fmt lock check-locks clean

# All is checked against the hashes in the lock, what builds Pollux too: in isolation pip would fetch that anew.
install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pollux needs Python 3.11 or newer; set PYTHON=/path/to/it"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The main job, visible end to end; exits 0 only if all that it claims held.
demo: install
	$(BIN)/python deploy/demo.py

# Simulated models, Pollux and its page on this machine, until Ctrl-C: ARGS="--port 4001 --open".
run: install
	$(BIN)/pollux dev $(ARGS)

# The tests start Pollux more than a hundred times: without bytecode, each start compiles all of it anew.
test: install
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 5 --dist worksteal $(ARGS)

# The image, labelled with what it was built from; SOURCE is the address of the repository. With podman:
# DOCKER=podman ARGS="--format docker", or it has no health check. The top of the Dockerfile tells what else can be set.
DOCKER ?= docker
SOURCE ?=
image:
	$(DOCKER) build --file deploy/Dockerfile --tag pollux $(ARGS) \
	  --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' server/__init__.py)" \
	  --build-arg REVISION="$$(git rev-parse HEAD)" --build-arg SOURCE="$(SOURCE)" .

# Builds the image and runs compose.yaml without a Docker daemon, as root: kills, restarts, and checks what it claims.
image-test:
	.ci/image

# Kills, pauses and restarts everything under load, and proves that no promise is broken: ARGS="--jobs 500 --seed 1".
chaos: install
	$(BIN)/python -m tests.faults.chaos $(ARGS)

# Three replicas under a steady mixed load, and nothing may grow that has no reason to: ARGS="--minutes 10 --seed 1".
soak: install
	$(BIN)/python -m tests.soak $(ARGS)

# The status page in a real Chromium.
browser-test:
	.ci/browser

# Whether the server does what /openapi.json says, by schemathesis: ARGS="--seed 0 --cases 10".
describe-test: install
	.ci/schemathesis $(ARGS)

# Feeds what reads strangers' input with bytes that lead to new branches of it: ARGS="--seconds 60 --only sse".
fuzz:
	.ci/fuzz $(ARGS)

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

# What others know of our dependencies, and bandit's opinion of our code.
audit:
	.ci/audit

fmt: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The locks fit every Python and platform that pyproject.toml names, and name no host. The image gets what is tested,
# without the tools.
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links
# What the image has by request only: each has a lock of what it adds.
EXTRAS := bedrock tracing vertex
lock: $(UV)
	$(LOCK) pyproject.toml --extra dev --output-file requirements.lock
	$(LOCK) pyproject.toml --constraint requirements.lock --output-file deploy/requirements.lock
	for extra in $(EXTRAS); do \
	  $(LOCK) pyproject.toml --extra $$extra --constraint requirements.lock --output-file deploy/locks/$$extra.lock \
	    $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' deploy/requirements.lock) || exit; \
	done
	$(LOCK) deploy/locks/build.in --output-file deploy/locks/build.lock
	for tools in audit browser fuzz helm schemathesis uv; do $(LOCK) .ci/$$tools.in --output-file .ci/$$tools.lock || exit; done

# Whether each package of the locks has a wheel for every Python and platform that we name. Installs nothing.
check-locks: $(UV)
	@for python in 3.11.0 3.11.3 3.12 3.13 3.14; do \
	  for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 x86_64-apple-darwin aarch64-apple-darwin; do \
	    for lock in requirements.lock deploy/requirements.lock; do \
	      $(UV) pip install --quiet --dry-run --target .venv-uv/none --no-deps --require-hashes --only-binary :all: \
	        --python-version $$python --python-platform $$platform --requirement $$lock \
	        || { echo "$$lock does not install on Python $$python, $$platform"; exit 1; }; \
	    done; \
	  done; \
	done

$(UV): .ci/uv.lock
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/uv.lock
	@touch $@

clean:
	rm -rf $(VENV) .venv-uv .venv-litellm .venv-helm .venv-audit .venv-fuzz .venv-browser .venv-schemathesis .fuzz .mypy_cache .ruff_cache .hypothesis
