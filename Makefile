# Everything a newcomer needs: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export BASTIDE_CONFORMANCE ?= $(abspath ../shared/conformance)
export BASTIDE_MISSION ?= $(abspath ../shared/mission)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python keeps what it compiled also where somebody switched that off: else every one of the many platforms that the tests start
# compiles the whole program again.
export PYTHONDONTWRITEBYTECODE :=
SUITE ?=
SDK ?=
# How many tests run at a time, each beside a platform of its process. Many wait for jobs, so they may be more than the processors.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
# At length: no test of it is stopped for the time that it takes.
LONG := $(BIN)/python -m pytest -q --timeout 0

.PHONY: help setup packages clients environments-test demo test sdk lint bench profile docs controls conformance crash cluster laws
.PHONY: fuzz clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

packages: ## Debian packages that sandboxes need, installed where missing
	@./scripts/packages

setup: packages $(VENV)/.ready environments ## .venv and the job environments

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked requirements ..."
	@awk '/^[^ #]/ {on = /^uv==/} on' requirements-dev.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r $(VENV)/uv.lock
	@UV_DEFAULT_INDEX=$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL} $(BIN)/uv pip install --quiet --python $(BIN)/python \
		--require-hashes -r requirements-dev.lock || \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . || \
		$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: environments
environments: $(VENV)/.ready
	@$(BIN)/bastide environments build codebuild lambda scikit-learn xgboost

.PHONY: tracking
tracking: $(VENV)/.ready
	@$(BIN)/bastide environments build mlflow notebook

environments-test: setup ## builds every environment and runs jobs in each
	@$(BIN)/bastide environments build huggingface pytorch spark tensorflow
	@BASTIDE_ENVIRONMENTS=all $(LONG) tests/environments

clients: $(VENV)/.ready ## the environments of the clients that Bastide is tried with
	@$(BIN)/python -m tests.clients

demo: setup ## a bank's mortgage model, by hand and from a commit to production
	@$(BIN)/bastide demo

lint: $(VENV)/.ready ## ruff, mypy --strict, the floors
	@$(BIN)/ruff check src tests scripts
	@$(BIN)/ruff format --check src tests scripts
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: packages $(VENV)/.ready ## everything that CI asks
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target environments tracking clients lint collected
	@$(PYTEST)

# What each process of the tests would compile, and read out of the sources for Hypothesis, is made once for all of them.
.PHONY: collected
collected: $(VENV)/.ready
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || true  # the run tells what is wrong

sdk: setup clients ## programs of the SageMaker SDK, v2 and v3, unchanged; SDK=v2/tuner for some
	@$(BIN)/python -m tests.sdk $(SDK)

controls: setup clients ## every control of the mission, the tests that cite it, how they ended
	@$(PYTEST) --controls

conformance: $(VENV)/.ready ## public cases of others, from BASTIDE_CONFORMANCE; SUITE=protocols, iam, asl, s3, stacks or records for one
	@$(BIN)/python -m tests.conformance $(SUITE)

.PHONY: imagery
imagery: setup ## a patch of a public image comes through base and framework to a team's image
	@BASTIDE_IMAGERY=all $(LONG) tests/stories/landing/test_imagery.py

crash: setup ## kills the platform at every step, and lets its power go, at length
	@BASTIDE_CRASH_ROUNDS=$${BASTIDE_CRASH_ROUNDS:-2000} BASTIDE_POWER_ROUNDS=$${BASTIDE_POWER_ROUNDS:-2000} \
		$(LONG) -s tests/crash tests/power

cluster: setup ## jobs on a Ray cluster of this machine: every story, machines that are killed too
	@$(LONG) tests/cluster/test_cluster.py tests/cluster/stories.py

laws: $(VENV)/.ready ## the laws of the policy engine, at length
	@HYPOTHESIS_PROFILE=long $(LONG) tests/laws

fuzz: setup ## documents and requests that nobody meant well, at length
	@HYPOTHESIS_PROFILE=long $(LONG) tests/unit/policy/test_hostile.py
	@FUZZ_INPUTS=10000 $(LONG) tests/fuzz

bench: setup ## side by side with moto_server and ministack, S3 and KMS by themselves; the policy engine with others
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench.objects
	@$(BIN)/python -m tests.bench.policy_decide
	@$(BIN)/python -m tests.bench.hosting
	@$(BIN)/python -m tests.bench.transform
	@$(BIN)/python -m tests.bench.states --peer
	@$(BIN)/python -m tests.bench.landing

profile: setup ## CPU of the front door, stage by stage
	@$(BIN)/python -m tests.bench.front_door

docs: $(VENV)/.ready ## docs/services, from the registry
	@$(BIN)/python scripts/docs.py

clean: ## removes what was installed and built
	rm -rf $(VENV) .venvs .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
