# Two commands do everything: `make demo` and `make test`. Each makes the environment first.
PYTHON ?= python3
VENV   ?= .venv
RUN     = $(VENV)/bin
DATA   ?= data/demo

.DEFAULT_GOAL := help
.PHONY: help env demo train test lint format clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  while IFS="$$(printf '\t')" read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

# The stamp is newer than what it was made from, so a second run installs nothing.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet -c constraints.txt --editable '.[dev]'
	@touch $@

env: $(VENV)/installed  ## make the Python environment in .venv

demo: env  ## draw the demo data, train a small model on it, predict and measure
	$(RUN)/boneage fetch demo --to data/demo
	$(RUN)/boneage train --config configs/demo.toml --data data/demo
	model=$$(ls -td runs/*-demo | head -n 1) && \
	  $(RUN)/boneage predict data/demo/test.csv --model $$model && \
	  $(RUN)/boneage evaluate --data data/demo --split test --model $$model --output runs/demo-evaluation

train: env  ## train the default model on DATA (make train DATA=data/rsna)
	$(RUN)/boneage train --model global --gender --data $(DATA)

test: env  ## run the tests
	$(RUN)/python -m pytest -n logical --maxprocesses 4

lint: env  ## check style and types
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

format: env  ## put the code in its style
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

clean:  ## remove caches and build products; data, runs and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean  ## also remove the environment
	rm -rf $(VENV)
