# Everything works in a fresh clone: each target makes .venv and installs what it needs, once.

PYTHON ?= python3
CORES = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')
VENV := .venv
BIN := $(VENV)/bin
WHEEL := $(VENV)/wheel
# What is never imported is not compiled, and what is, is compiled once, and not again by each of a thousand workers.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
DIAGRAMS := README.md docs/lifecycles.md

MINUTES ?= 5
# The wheel, and what stands in the docs: they are checked, with the generated pages.
ELSEWHERE := tests/packaging tests/examples

# What `make bench` asks for: BENCH="--write" keeps a run, BENCH="--compare" judges it by the one that was kept.
BENCH ?=

.PHONY: help demo test check docs coverage fuzz bench harness explore mutants shake clean

help:
	@echo "make demo      answer 300 questions while workers are killed"
	@echo "make test      all tests but those that belong to the check"
	@echo "make check     format, lint, types, generated docs, what stands in the docs, wheel"
	@echo "make docs      bring the generated docs up to date"
	@echo "make fuzz      attack the pool for MINUTES (5), in simulation and on real processes"
	@echo "make bench     remuda beside other pools and the bare limits, as ratios; BENCH=--write keeps them; half an hour or more"
	@echo "make harness   cut and kill workers at every byte, a thousand times under load, and the application too; for hours"
	@echo "make explore   walk through larger pools state by state, for many minutes"
	@echo "make mutants   plant bugs, change the deciding code in every small way, write down what is noticed; for half an hour"
	@echo "make shake     all tests, 20 times, in another order each time, with both cores loaded"
	@echo "make coverage  all tests, and what they reach, in workers too"
	@echo "make clean     remove what the others made"

demo: $(VENV)/.demo
	$(BIN)/python -m remuda demo

# One runner more than there are cores: some tests wait, for a process or for a deadline.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $$(($(CORES) + 1)) --dist worksteal $(ELSEWHERE:%=--ignore=%) tests

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m remuda.cli.diagram --check $(DIAGRAMS)
	$(BIN)/python tests/reality/table.py --check
	$(BIN)/python docs/make_errors.py --check
	$(BIN)/python tests/mutants.py --check
	$(BIN)/python -m pytest -q -n auto $(ELSEWHERE)

docs: $(VENV)/.dev
	$(BIN)/python -m remuda.cli.diagram --write $(DIAGRAMS)
	$(BIN)/python tests/reality/table.py --write
	$(BIN)/python docs/make_errors.py --write

fuzz: $(VENV)/.dev
	$(BIN)/python -m remuda fuzz --minutes $(MINUTES)
	$(BIN)/python -m remuda fuzz --minutes $(MINUTES) --real
	REMUDA_TEST_DEPTH=10 $(BIN)/python -m pytest -q -o timeout=3600 tests/specs

# What is measured is what users have: the wheel. An editable install costs each interpreter more than msgspec does.
bench: $(WHEEL)/.made
	rm -rf build
	$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps .
	$(WHEEL)/bin/remuda bench $(BENCH)

# All of it, also if something fails on the way; with the fork server where the system has one.
harness: $(VENV)/.dev
	$(INSTALL) atheris==3.0.0
	failed=0; \
	$(BIN)/python -m tests.harness cuts --start forkserver || failed=1; \
	$(BIN)/python -m tests.harness cuts --start spawn --every 7 || failed=1; \
	$(BIN)/python -m tests.harness kills --times 1000 || failed=1; \
	$(BIN)/python -m pytest -q --count 10 tests/reality/test_killed.py -k after_the_next_start || failed=1; \
	$(BIN)/python -m tests.harness.fuzzing --seconds $$((60 * $(MINUTES))) || failed=1; \
	exit $$failed

explore: $(VENV)/.dev
	$(BIN)/python -m remuda.specs.deep

mutants: $(VENV)/.dev
	$(INSTALL) mutmut==3.8.1
	$(BIN)/python tests/planted.py --write
	$(BIN)/python tests/mutants.py

# As many runners as there are cores, twice: nothing is ever alone on a core.
shake: $(VENV)/.dev
	for round in $$(seq 20); do \
		$(BIN)/python -m pytest -q -n $$((2 * $(CORES))) -p randomly --timeout 600 tests || exit 1; \
	done

coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

clean:
	rm -rf $(VENV) build dist *.egg-info .fuzzing .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "remuda needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(INSTALL) -e '.[cli,dspy]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(INSTALL) -e '.[cli,dspy,specs,dev]'
	@touch $@ $(VENV)/.demo

$(WHEEL)/.made: $(VENV)/.made pyproject.toml benchmarks/peers.txt
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check '.[cli,dspy]' -r benchmarks/peers.txt
	@touch $@
