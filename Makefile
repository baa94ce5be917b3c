# Every command sets up what it needs first. An active virtual or conda environment
# is used; where there is none, one is made in .venv (PYTHON=python3.12 says by whom).

# The tests of a file share what they compile, so that they stay together.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
ACTIVE := $(wildcard $(addsuffix /bin/python,$(VIRTUAL_ENV) $(CONDA_PREFIX)))
RUN := $(firstword $(ACTIVE) .venv/bin/python)
INSTALLED := $(RUN:%/bin/python=%/taming_jax-installed.txt)

.PHONY: demo demo-conditions test test-long faults fuzz lint format clean

demo: $(INSTALLED)
	$(RUN) -m taming_jax demo

demo-conditions: $(INSTALLED)
	$(RUN) -m taming_jax demo-conditions

test: $(INSTALLED)
	$(RUN) -m pytest -m "not slow" $(PARALLEL)

test-long: $(INSTALLED)
	$(RUN) -m pytest -m slow $(PARALLEL)

faults: $(INSTALLED)
	$(RUN) tests/faults

fuzz: $(INSTALLED)
	$(RUN) tests/fuzz

lint: $(INSTALLED)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

format: $(INSTALLED)
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Whatever jax is there already, an accelerator's build perhaps, is pinned while the
# rest is installed: pip may choose around it but not replace it.
$(INSTALLED): requirements.txt | $(RUN)
	@$(RUN) -c $(NEW_ENOUGH) || { echo $(TOO_OLD); exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(RUN) -m ensurepip
	@$(RUN) -m pip list --format=freeze | grep -E '^(jax|libtpu)' > $@.part; true
	$(RUN) -m pip install -r requirements.txt -c $@.part
	@mv $@.part $@

.venv/bin/python:
	@for python in $(PYTHON); do \
	  $$python -c $(NEW_ENOUGH) 2>/dev/null || continue; \
	  $$python -m venv .venv && exit; rm -rf .venv; \
	done; echo $(TOO_OLD); exit 1

NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
TOO_OLD := "Python 3.11 or newer with venv is needed: install one, then activate an \
  environment of it or say make PYTHON=/path/to/it"
