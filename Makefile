# Every command sets up what it needs first. An active virtual or conda environment
# is used; where there is none, one is made in .venv (PYTHON=python3.12 says by whom).

ENVIRONMENT := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),.venv)
PYTHON ?= python3
RUN := $(ENVIRONMENT)/bin/python
INSTALLED := $(ENVIRONMENT)/taming_jax-installed.txt

.PHONY: test test-long lint format clean

test: $(INSTALLED)
	$(RUN) -m pytest -m "not slow"

test-long: $(INSTALLED)
	$(RUN) -m pytest -m slow

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
# rest is installed: pip may work around it but not replace it.
$(INSTALLED): requirements.txt | $(RUN)
	@$(RUN) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; \
	  sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; " \
	  "$(RUN) is " + v + ". Try make PYTHON=python3.12, or activate another.")'
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(RUN) -m ensurepip
	@$(RUN) -m pip list --format=freeze | grep -E '^(jax|libtpu)' > $@.part; true
	$(RUN) -m pip install -r requirements.txt -c $@.part
	@mv $@.part $@

$(ENVIRONMENT)/bin/python:
	$(PYTHON) -m venv $(ENVIRONMENT) || { rm -rf $(ENVIRONMENT); exit 1; }
