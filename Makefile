# medkd: `make` lists the targets. Each does the set-up it needs by itself.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO ?= runs/demo
DEMO_SAMPLES ?= 2000
TESTS ?= tests
SERVERS ?= llama-cpp transformers litellm
TAG ?= dev
BASE_IMAGE ?= python:3.11-slim-bookworm
BUILD := docker build --network host --build-arg BASE=$(BASE_IMAGE) --build-arg VERSION=$(TAG) --build-arg REVISION=$(shell git rev-parse --short HEAD 2>/dev/null)
# As a pod starts it: no root, nothing to write but /tmp.
START := docker run --rm -i --network none --read-only --tmpfs /tmp:exec

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-torch test-chaos test-kubernetes test-cluster test-interoperation test-all bench-quality bench-teacher bench-control bench-efficiency bench-intake bench-training lint format schema lock chart-files rendered images worker-image trainer-image objectstore-image clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: $(READY) ## a virtual environment with everything pinned, and DeepSpeed's CPU operator compiled

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "medkd needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	@command -v g++ >/dev/null || { echo "medkd's training needs a C++ compiler: install g++ (Debian: apt-get install g++)"; exit 1; }
	@echo "setting up .venv (some 3 GB are downloaded the first time: PyTorch comes with its CUDA libraries)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt -e '.[all,test,lint]'
	$(BIN)/python -m medkd.student.compile_ops
	@touch $@

demo: $(READY) ## the whole pipeline on this machine with a simulated teacher; ends by naming a report to open
	@mkdir -p $(dir $(DEMO))
	$(BIN)/medkd simulate --port 0 --latency 0.05 --write-gold $(DEMO)-gold.jsonl -- \
	  $(BIN)/medkd run --prefix $(DEMO) --teacher simulator --student tiny-t5 --num-samples $(DEMO_SAMPLES) --num-shards 4 \
	    --num-topics 20 --exchanges 4-6 --ranks 2 --gold $(DEMO)-gold.jsonl

test: $(READY) ## the fast tests: real HTTP, a real S3 server, real processes; no training, no cluster
	$(BIN)/pytest -n 2 --dist loadfile $(TESTS)

test-torch: $(READY) ## training tests on real DeepSpeed ranks (CPU)
	$(BIN)/pytest -m torch $(TESTS)

test-chaos: $(READY) ## tests that kill processes at random moments; with KUBECONFIG a run on that cluster, too
	$(BIN)/pytest -m chaos -n 3 $(TESTS)

test-kubernetes: $(READY) ## the chart rendered (needs Helm 3 or 4, or both) and the driver against an API with Job semantics
	$(BIN)/pytest -m '(chart or driver) and not cluster' -n 2 $(TESTS)

test-cluster: $(READY) ## tests on the cluster of KUBECONFIG (tests/cluster/tools.py says what else they are told)
	$(BIN)/pytest -m 'cluster and not chaos' $(TESTS)

test-interoperation: $(READY) $(SERVERS:%=.interoperation/%/.ready) ## the client against llama.cpp, transformers serve and LiteLLM, each in an environment of its own (SERVERS=...)
	$(BIN)/pytest -m interoperation $(or $(filter-out tests,$(TESTS)),tests/interoperation)

.interoperation/llama-cpp/.ready: NEEDS = xllamacpp==2026.10.11549 gguf==0.19.0
.interoperation/transformers/.ready: NEEDS = -c constraints.txt 'transformers[serving,torch]'
.interoperation/litellm/.ready: NEEDS = 'litellm[proxy]==1.106.12' prisma
.interoperation/%/.ready: Makefile | $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(@D)/bin/python $(NEEDS)
	@touch $@

test-all: test test-torch test-chaos ## every test that one machine can run

bench-quality: $(READY) ## measure what guards the data: planted errors, false alarms, curated against uncurated rows, a million rows through prepare
	$(BIN)/python -m tests.benchmarks.planted_errors 2000
	$(BIN)/python -m tests.benchmarks.curated
	$(BIN)/python -m tests.benchmarks.prepare_rows 100000 1000000

bench-training: $(READY) ## useful tokens per second against Trainer, F1 of two recipes, ranks and ZeRO stages, a large save (CPU; 45 minutes)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[bench]'
	$(BIN)/python -m tests.benchmarks.training_speed --runs 5
	$(BIN)/python -m tests.benchmarks.learning
	$(BIN)/python -m tests.benchmarks.scaling
	$(BIN)/python -m tests.benchmarks.save

bench-teacher: $(READY) ## every fault of a teacher by itself (rewrites tests/benchmarks/fault_menu.md), all at once with 20 kills, 8 shards on one key
	$(BIN)/python -m tests.benchmarks.fault_menu --samples 200 --write tests/benchmarks/fault_menu.md
	$(BIN)/python -m tests.benchmarks.mixed_faults --samples 2000 --kills 20
	$(BIN)/python -m tests.benchmarks.shared_key

bench-efficiency: $(READY) ## one shard's throughput, CPU and memory beside two plain loops; 12 minutes on an idle machine
	$(BIN)/python -m tests.benchmarks.efficiency

bench-control: $(READY) ## what a run of 500 shards asks of the control plane of the cluster in KUBECONFIG
	$(BIN)/python -m tests.benchmarks.many_shards

bench-intake: $(READY) ## peak memory of taking in 120,000 existing conversations, beside reading whole files
	$(BIN)/python -m tests.benchmarks.intake_memory 120000

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the code in its one format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

schema: $(READY) ## rewrite configs/model_configs.schema.json from the code
	$(BIN)/medkd config schema > configs/model_configs.schema.json

lock: $(READY) ## resolve the newest versions into constraints.txt
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate pyproject.toml --extra all --extra liger --extra test --extra lint -o constraints.txt

chart-files: $(READY) ## rewrite what the chart carries twice: configuration, schema and table of its values
	$(BIN)/python -m charts.write_files

rendered: chart-files ## rewrite the manifests in k8s/rendered and the rules in k8s/monitoring (needs Helm)
	$(BIN)/python -m tests.chart.rendering

images: worker-image objectstore-image trainer-image ## build the images, start each once to import what it promises, print what it is made of
	@docker image ls --filter reference='medkd-*:$(TAG)'

worker-image trainer-image: %-image:
	$(BUILD) -t medkd-$*:$(TAG) -f images/$*/Dockerfile .
	$(START) --entrypoint python $(if $(filter trainer,$*),-e DS_ACCELERATOR=cpu) medkd-$*:$(TAG) - < images/$*/promises.py
	@echo "medkd-$*:$(TAG) is made of"
	@$(START) --entrypoint python medkd-$*:$(TAG) - < images/contents.py

objectstore-image:
	$(BUILD) -t medkd-objectstore:$(TAG) -f images/objectstore/Dockerfile .
	$(START) medkd-objectstore:$(TAG) version

clean: ## remove the demo's run and the servers of others; the environment stays
	rm -rf runs .interoperation
