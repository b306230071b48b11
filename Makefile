# Everything sets itself up in .venv; nothing needs to be installed by hand but Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROGRAM ?= $(BIN)/grym-fetch
# CI adds `components`: services and clients that a few tests need and that skip where they are missing.
EXTRAS ?= dev,speed
PYTEST := $(BIN)/python -m pytest -q
# On every core; who has nothing left to do takes over from the others.
SPREAD := -n auto --dist worksteal
# Only these modules are read for the tests that run by themselves.
ALONE  := $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)

# Tests start hundreds of processes: without bytecode each of them would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-debian test-darwin test-windows test-dockerfile packages sweep guards coverage check format lint types blocking man picture docs reliability bench constraints oldest audit fuzz mutants clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "grym-fetch needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(READY)  ## the main job, with no network
	$(PROGRAM) demo

test: $(READY)  ## all tests but the sweeps
	$(PYTEST) $(SPREAD) -m "not alone and not sweep"
	$(PYTEST) -m "alone and not sweep" $(ALONE)

sweep: $(READY)  ## every crash point, every seed, files of a GiB, and each property four times over: minutes
	HYPOTHESIS_PROFILE=sweep $(PYTEST) --timeout 900 $(SPREAD) -m "(sweep or hypothesis) and not alone"
	$(PYTEST) --timeout 900 -m "sweep and alone" $(ALONE)
	$(BIN)/python -m tests.house.guards

guards: $(READY)  ## take out each guard of tests/house/guard_lists once, in a copy, and see its tests fail; ROWS="S1 C8"
	$(BIN)/python -m tests.house.guards $(ROWS)

coverage: $(READY)  ## which lines and branches the tests reach, and the modules that they reach least
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -q $(SPREAD) -m "not alone and not sweep"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --sort=cover | sed -n 1,25p
	$(BIN)/python -m coverage report --format=total

check: $(READY) lint types test  ## what decides whether a change is good

format: $(READY)  ## format, and fix what can be
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

lint: $(READY)  ## format, lint and generated code, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m tools.generate_blocking --check

types: $(READY)  ## also for macOS and Windows, in caches of their own: what is not there is an error
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin grym_fetch
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 grym_fetch

blocking: $(READY)  ## write grym_fetch/blocking.py anew from manager.py
	$(BIN)/python -m tools.generate_blocking

man: $(READY)  ## write man/ anew from the command
	$(BIN)/python -m tools.man_pages

picture: $(READY)  ## write docs/screen.svg anew from the real display
	$(BIN)/python -m tools.picture

docs: $(READY) picture  ## build the site into build/site; a warning is an error
	@test -x $(VENV)/docs/bin/python || $(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(VENV)/docs/bin/python -m mkdocs build --strict --quiet

reliability: $(READY)  ## write docs/reliability.md anew from the marks of the tests
	$(BIN)/python -m tests.house.reliability

bench: $(READY)  ## speed, against the tools that are installed; QUICK=1, SCENARIOS="tls killed", REPORT=1 for the page
	@test -x $(VENV)/peers/bin/python || $(PYTHON) -m venv $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt || true
	$(BIN)/python -m benchmarks $(SCENARIOS) $(if $(REPORT),--report docs/performance.md)

fuzz: $(READY)  ## look for inputs that break a reader: FUZZ_SECONDS (600) for each target
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: 'atheris>=3.0' 2>/dev/null || true
	$(BIN)/python -m fuzz

mutants: $(READY)  ## take guards out one at a time and say which no test misses; MODULES="…", SAMPLE=100, OWN=1
	$(BIN)/python -m tools.mutants $(MODULES) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(OWN),--own)

constraints:  ## write constraints.txt anew from the newest versions there are; run the checks afterwards
	$(PYTHON) -m venv --clear .venv/newest
	.venv/newest/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,speed,components,packages]'
	{ sed -n '/^#/p' constraints.txt; .venv/newest/bin/python -m pip freeze --exclude grym-fetch --disable-pip-version-check \
	  | sed 's/^uvloop==.*/&; platform_system != "Windows"/'; } > constraints.new
	mv constraints.new constraints.txt

# In two steps: what only the tests need has no say in which versions are the oldest, as a user would get them. The rules
# for constraints.txt are for what is developed with.
oldest: $(READY)  ## the tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv/oldest
	$(BIN)/python -m tests.house.dependencies > .venv/oldest/constraints.txt
	.venv/oldest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev,speed]'
	.venv/oldest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement .venv/oldest/constraints.txt --editable '.[speed]'
	.venv/oldest/bin/python -m pytest -q $(SPREAD) -m "not alone and not sweep" --ignore tests/house/test_dependencies.py

packages: $(READY)  ## build wheel and sdist into dist/, twice; check them, and install each into an empty environment
	@$(BIN)/python -c 'import hatchling, twine' 2>/dev/null || $(BIN)/python -m pip install --quiet \
	  --disable-pip-version-check --constraint constraints.txt --editable '.[packages]'
	$(BIN)/python -m tools.packages

test-all: $(READY)  ## all tests but the sweeps, with every Python from 3.11 on that is here
	@for python in python3.11 python3.12 python3.13 python3.14; do \
	  if $$python -c pass 2>/dev/null; then $(MAKE) test PYTHON=$$python VENV=.venv/$$python || exit 1; \
	  else echo "$$python is not here"; fi; done

test-debian: $(READY)  ## the tests in a Debian of its own, as root, with debootstrap: SUITE=trixie (Python 3.13), sid (3.14)
	$(BIN)/python -m tools.debian_root $(or $(SUITE),trixie)

test-darwin: $(READY)  ## the tests without the calls that macOS lacks: TESTS="tests/disk tests/archive" for some
	PYTHONPATH=$(CURDIR)/tests/support/as_darwin $(PYTEST) -m "not alone and not sweep and not linux" $(TESTS)

test-windows: $(READY)  ## tests with a Windows Python on Wine, in a Debian of its own; needs what test-debian needs
	$(BIN)/python -m tools.wine $(TESTS)

test-dockerfile: $(READY)  ## the steps of the Dockerfile, in a Debian root; needs what test-debian needs
	$(BIN)/python -m tools.dockerfile $(or $(SUITE),trixie)

audit: $(READY)  ## known vulnerabilities of the versions in constraints.txt; asks the package index
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off --requirement constraints.txt

clean:  ## delete .venv and what was generated beside the sources
	rm -rf $(VENV) .fuzz .mutants .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
