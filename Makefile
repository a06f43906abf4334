# The two commands: `make demo` and `make test`. Each sets up .venv by itself, once.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off --constraint constraints.txt

# A hundred processes that tests start would else compile each module anew, where a shell or an image sets this.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fast check docs bench clean

demo: .venv/ready
	$(BIN)/lensmith demo

# The inner loop: no browser, server or long training.
fast: .venv/ready
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not browser"

test: check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=
	@echo "lines of src run by the tests that are not slow: $$($(BIN)/coverage report --format=total) %"

check: .venv/ready
	$(BIN)/ruff format --check --quiet . || ($(BIN)/ruff format --diff .; exit 1)
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Generated files: settings, bundle schema, tables of files, keywords of the API.
docs: .venv/ready
	for file in tools/generate_*.py; do $(BIN)/python $$file || exit 1; done

bench: .venv/ready
	for file in bench/*.py; do \
	  echo "== $$file"; \
	  $(BIN)/python $$file --json $$(grep -q -- '"--quick"' $$file && echo --quick) || exit 1; \
	done

# Always with the constraints: unpinned, pip silently goes back to very old releases.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer was expected; $$($(PYTHON) --version) arrived. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) 'pip>=25.1'  # the first that knows dependency groups
	$(PIP) --group dev --editable '.[all]'
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .coverage*
