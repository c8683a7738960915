# Every command sets up what it needs in .venv first; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:  # a half-made environment is made anew

# The cluster that `make kind-up` made; what is given on the command line goes first.
ifeq ($(RUNNER),kfp)
-include build/kind.mk
endif

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
PORT ?= 5000
PROFILE ?= gpu
WORK ?= build/benchmark
OVERLAY ?= gpu
ACCELERATOR ?= cpu
export ACCELERATOR REGISTRY PUSH PIP_CONF BASE_IMAGE OVERLAY CONTEXT WITH_KFP

# Options of the pipeline's own command line, from make's variables.
OPTIONS = --runs-dir "$(RUNS)" --profile "$(PROFILE)" \
	$(if $(CONFIG),--config "$(CONFIG)") $(if $(DATA),--data "$(DATA)") $(if $(RUNNER),--runner "$(RUNNER)") \
	$(if $(KFP_HOST),--host "$(KFP_HOST)") $(if $(IMAGE),--image "$(IMAGE)") $(if $(DEBUG),--debug) \
	$(if $(KFP_NAMESPACE),--namespace "$(KFP_NAMESPACE)") $(if $(MLFLOW_URL),--mlflow-url "$(MLFLOW_URL)") \
	$(if $(PARALLELISM),--parallelism "$(PARALLELISM)") $(if $(GPUS),--gpus "$(GPUS)")

.PHONY: help
help: ## Show this list
	@echo "make COMMAND [CONFIG=run.yaml] [DATA=log.parquet] [RUNNER=local|kfp] [RUNS=folder] [DEBUG=1]"
	@echo
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: pipeline-run
pipeline-run: $(VENV)/pipeline.stamp ## Run the whole pipeline here, or on a cluster with KFP_HOST set
	@$(BIN)/python -m pipelines.run $(OPTIONS)

.PHONY: compile
compile: $(VENV)/pipeline.stamp ## Write the compiled pipeline to build/ (PROFILE=local|kind|gpu)
	@$(BIN)/python -m pipelines.run --compile-only $(OPTIONS)

.PHONY: schedule
schedule: $(VENV)/pipeline.stamp ## Let a cluster start the pipeline by the clock (CRON="0 3 * * *", UTC)
	@test -n "$(CRON)" || { echo 'error: CRON is empty, allowed: CRON="minute hour day month weekday" (UTC)' >&2; exit 2; }
	@$(BIN)/python -m pipelines.run --schedule "$(CRON)" $(OPTIONS)

.PHONY: image
image: ## Build the images of tasks and MLflow server (ACCELERATOR=cpu|cuda REGISTRY=host/path PUSH=1)
	@infra/image/build.sh

.PHONY: kind-up
kind-up: ## A cluster on this machine with Kubeflow Pipelines and MLflow, in kind
	@infra/kind/up.sh

.PHONY: kind-down
kind-down: ## Delete the cluster of kind-up
	@infra/kind/down.sh

.PHONY: deploy
deploy: ## Apply an overlay to your cluster (OVERLAY=gpu REGISTRY=host/path CONTEXT=name WITH_KFP=1)
	@infra/deploy.sh

.PHONY: mlflow-ui
mlflow-ui: $(VENV)/pipeline.stamp ## Compare runs in MLflow's UI (PORT=5000)
	@$(BIN)/python -m pipelines.mlflow_ui --runs-dir "$(RUNS)" --port "$(PORT)"

.PHONY: promote
promote: $(VENV)/pipeline.stamp ## Make a version the champion by hand (MODEL=glintru VERSION=3)
	@$(BIN)/glintru promote --name "$(MODEL)" --version "$(VERSION)" --runs-dir "$(RUNS)"

.PHONY: rollback
rollback: $(VENV)/pipeline.stamp ## Give the alias champion back to the version before (MODEL=glintru)
	@$(BIN)/glintru rollback --name "$(MODEL)" --runs-dir "$(RUNS)"

.PHONY: test
test: $(VENV)/test.stamp ## Run the fast tests
	$(BIN)/python -m pytest -m "not slow and not cluster" -n auto

.PHONY: test-slow
test-slow: $(VENV)/test.stamp ## Run the tests that train, serve or run whole pipelines
	$(BIN)/python -m pytest -m "slow and not cluster"

.PHONY: test-e2e
test-e2e: $(VENV)/test.stamp ## Prove the cluster's parts on this machine: image, services, pipeline in containers
	$(BIN)/python -m pytest -m cluster -v -s -rs tests/e2e_cluster

.PHONY: benchmark-data
benchmark-data: $(VENV)/test.stamp ## Time Parquet to sequences at 10, 30 and 100 M rows (WORK=folder, about 8 GB)
	$(BIN)/python -m benchmarks.data_at_scale --work "$(WORK)"

.PHONY: benchmark-preprocessing
benchmark-preprocessing: $(VENV)/test.stamp build/peers/bin/python ## Time it beside RecTools and RecBole, up to what each completes (WORK=folder)
	$(BIN)/python -m benchmarks.compare_preprocessing --peers build/peers/bin/python --work "$(WORK)"

.PHONY: benchmark-models
benchmark-models: $(VENV)/test.stamp build/peers/bin/python ## Time training and top-10 beside RecTools and RecBole (LOGS="log.parquet:200:0.08" DEVICE=cpu|cuda)
	@test -n "$(LOGS)" || { echo 'error: LOGS is empty, allowed: LOGS="PATH:MAX_SEQ_LEN:GOAL ..."' >&2; exit 2; }
	$(BIN)/python -m benchmarks.model_speed --peers build/peers/bin/python --work "$(WORK)" --log $(LOGS) $(if $(DEVICE),--device "$(DEVICE)")

.PHONY: benchmark-accuracy
benchmark-accuracy: $(VENV)/test.stamp ## Train both models of a run with three seeds (CONFIG=run.yaml DATA=log.parquet DEVICE=cpu|cuda, hours)
	@test -n "$(CONFIG)" || { echo 'error: CONFIG is empty, allowed: CONFIG=pipelines/configs/ml-1m.yaml' >&2; exit 2; }
	@test -n "$(DATA)" || { echo 'error: DATA is empty, allowed: DATA=log.parquet' >&2; exit 2; }
	$(BIN)/python -m benchmarks.accuracy --config "$(CONFIG)" --data "$(DATA)" --work "$(WORK)/accuracy" $(if $(DEVICE),--device "$(DEVICE)")

.PHONY: benchmark-histories
benchmark-histories: $(VENV)/test.stamp ## Time GLINT-RU by length of history, and rank after up to 10,000 events
	$(BIN)/python -m benchmarks.long_histories

build/peers/bin/python: benchmarks/peers.txt | $(VENV)/bin/python
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --requirement benchmarks/peers.txt
	@touch $@

.PHONY: lint
lint: $(VENV)/test.stamp ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/test.stamp ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: ## Resolve every dependency anew and write constraints.txt
	$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/pip install -q torch==2.13.0 -e ".[pipeline,test]"
	build/lock-venv/bin/pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+).*/\1/' > constraints.txt
	rm -r build/lock-venv

.PHONY: clean
clean: ## Remove what builds and tests leave behind (not runs/)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The environment: installed once, again when the dependencies change.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no python3.11 found; install it or give PYTHON=path"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) -V); Python 3.11, 3.12 or 3.13 is needed (PYTHON=path)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/pipeline.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing the pipeline into $(VENV) (once; one to a few minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[pipeline]"
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing the pipeline and its test tools into $(VENV) (once; one to a few minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[pipeline,test]"
	@touch $@ $(VENV)/pipeline.stamp
