# Every command of this template; `make` alone lists them.
#   make demo PYTHON=python3.12    another Python than the first fitting one on the PATH
#   make demo VENV=/some/where     another place for the environment (no spaces)
#   make demo PIP="uv pip"         uv instead of pip
TEMPLATE := {{cookiecutter.project_slug}}
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
STARTER ?= mnist
BIN := $(VENV)/bin
PIP ?= "$(BIN)/python" -m pip
PYTEST := "$(BIN)/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.template-installed
export VIRTUAL_ENV := $(VENV)# where uv installs
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1# no __pycache__ inside the template: it would be baked

ifneq ($(word 2,$(VENV)),)
$(error VENV=$(VENV) has a space in it, which make cannot have in the name of a file: choose another place)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo bench check test scale lint lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## the environment in .venv: what a generated project needs, and cookiecutter (about 6 GB)

$(STAMP): $(TEMPLATE)/requirements.lock requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10, 3.11 or 3.12 on the PATH: make setup PYTHON=/path/to/python3.12"; exit 2; }
	"$(PYTHON)" -m venv "$(VENV)"
	$(PIP) install -r "$(TEMPLATE)/requirements.lock" -r requirements-dev.txt
	@touch "$@"

demo: setup ## bake a project into build/demo, train it, show figures and report (STARTER=protein for the other model)
	"$(BIN)/python" tools/demo.py "$(STARTER)"

bench: setup ## how fast the default project trains, beside plain PyTorch and Lightning: build/bench.json (ARGS="--help")
	rm -rf build/bench
	"$(BIN)/python" -m cookiecutter . --no-input --default-config --output-dir build/bench
	"$(BIN)/python" benchmarks/bench.py build/bench/mnist-megatron $(ARGS)

check: lint ## lint, bake, input, options: about two minutes
	$(PYTEST) -m "not slow"

test: lint ## everything but the Slurm cluster: also trains from the wheel and runs the generated project's own tests
	$(PYTEST) --ignore tests/test_slurm_cluster.py

scale: setup ## eight processes, two GPUs if there are; two machines and a Slurm cluster, made on this one, as root
	$(PYTEST) -rs tests/test_many_processes.py tests/test_two_machines.py tests/test_slurm_cluster.py

lint: setup ## ruff on the template's own Python (the generated project is linted by the tests)
	"$(BIN)/ruff" check benchmarks hooks tests tools
	"$(BIN)/ruff" format --check benchmarks hooks tests tools

lock: setup ## resolve the generated project's dependencies again (network)
	rm -rf build/lock
	"$(BIN)/python" -m cookiecutter . --no-input --default-config --output-dir build/lock
	$(MAKE) -C build/lock/mnist-megatron -o setup lock VENV="$(if $(filter /%,$(VENV)),$(VENV),../../../$(VENV))"
	cp build/lock/mnist-megatron/requirements.lock "$(TEMPLATE)/requirements.lock"

clean: ## remove what make and the tools left, except .venv
	rm -rf build .pytest_cache .ruff_cache .mypy_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
