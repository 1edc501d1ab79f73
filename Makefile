# Everything starts here: `make help` lists it. Each target does its own set-up.

PYTHON ?= python3.11
TORCH_INDEX ?=
JOBS ?= 2
STUDY ?= studies/sentiment

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# what is installed follows from these two files: another content, another stamp
STAMP := $(VENV)/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)

# one thread a process: two test processes on two cores would otherwise slow each other down
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv chromium demo test lab app lint types contracts check bench plotly clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=$(PYTHON)  STUDY=$(STUDY)  JOBS=$(JOBS) (test processes)"
	@echo "  TORCH_INDEX=https://download.pytorch.org/whl/cpu  for a small torch where the plain index gives CUDA builds"

venv: $(STAMP) ## Make .venv with everything pinned; does nothing when it is up to date

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "expected $(PYTHON) on the path; install it, or name another from 3.11 on: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing into $(VENV), everything pinned by constraints.txt; two minutes or so"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "pip>=25.1"
	$(PIP) install --quiet --constraint constraints.txt --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet --constraint constraints.txt hatchling editables
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[all]" --group dev
	$(PIP) install --quiet --constraint constraints.txt --no-deps --group bench
	@$(BIN)/python toolkit/paredown/kernels/cpu/build.py
	@rm -f $(VENV)/installed-*
	@touch $@

chromium:
	@sh .ci/chromium

demo: venv ## Compress the sentiment model, write report and checkpoint (4 minutes)
	$(BIN)/paredown run demo:sentiment --study $(STUDY)
	$(BIN)/paredown report $(STUDY)
	$(BIN)/paredown export $(STUDY) --bits 4 --to $(STUDY)/checkpoint
	@echo
	@echo "Open the explorer on this study:  make lab                (JupyterLab, notebooks/01_explore.ipynb)"
	@echo "                             or:  $(BIN)/paredown app $(STUDY)   (in the browser, without Jupyter)"

test: venv chromium ## Run the whole test suite, browser tests included
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

lab: venv ## Open JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/01_explore.ipynb

app: venv ## Serve the explorer without Jupyter
	$(BIN)/paredown app $(STUDY)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/pyright

contracts: venv
	$(BIN)/lint-imports

check: lint types contracts test ## Lint, types, import contracts and tests, exactly as CI

bench: venv ## Run every benchmark, with its rivals, and write benchmarks/RESULTS.md
	$(PIP) install --quiet --constraint constraints.txt --no-deps --group bench-methods
	$(BIN)/python benchmarks/rivals/install.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
	$(BIN)/python benchmarks/run_all.py

plotly: ## Fetch the plotly.js that the explorer carries again (npm)
	@sh .ci/plotly

clean: ## Remove .venv and all caches; studies stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
