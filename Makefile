# `make demo` and `make test` do all the set-up themselves: they make .venv and install what they need.
PYTHON ?= python3
# For the newest PyTorch, of release-check: the newest Python that is supported.
NEWEST ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check --constraint constraints.txt
# Of what pip says: the large packages as their turns come. Errors are on standard error, and stay whole.
SHOW := while read -r line; do case "$$line" in \
	Downloading*MB\) | Using\ cached*MB\)) echo "  $$line" ;; \
	Installing\ collected*) echo "  Unpacking, a minute or two ..." ;; esac; done
# A pipe fails where pip does.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
DECLARED := pyproject.toml constraints.txt
CODE := src tests examples benchmarks

# Threads that wait should sleep: on a busy machine, spinning ones cost more time than the work.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-exported test-cluster test-slow test-packages test-browser chromium mutations lint classifiers bench site release-check venv

demo: $(VENV)/.models  ## explain the cat against the coffee, and the coffee against the cat, to ./demo/
	$(BIN)/clarp explain src/clarp/assets/cat_and_coffee.jpg --method ssglrp \
		--target "Egyptian cat,espresso" --against "Egyptian cat,espresso" --out demo

# A process for each core, each with one thread: threads of several processes get in each other's way. A file's tests stay
# together and in order, for the sake of what they share; the largest files go first.
test: $(VENV)/.dev  ## everything that takes seconds
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not browser and not exported and not cluster" --numprocesses logical --maxprocesses 4 --dist loadfile

test-exported: $(VENV)/.dev  ## two hundred drawn networks as exported programs; takes minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m exported --numprocesses 2 --dist load

test-cluster: $(VENV)/.dev  ## runs by several processes and by a Ray cluster; takes minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "cluster and not slow" --numprocesses 2 --dist load

test-slow: $(VENV)/.dev  ## everything that takes minutes
	$(BIN)/pytest -m slow

test-packages: $(VENV)/.dev  ## models of other people's packages, which it installs without their dependencies; takes minutes
	$(INSTALL) --no-deps --requirement tests/packages/requirements.txt
	$(BIN)/pytest -m slow tests/packages

test-browser: $(VENV)/.dev chromium  ## the pages in a browser, as a person uses them; screenshots go to ./screenshots/
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser --numprocesses 2 --dist loadfile

# Only what is missing: npm of another source, which comes with its nodejs, conflicts with Debian's.
chromium:  ## the browser of test-browser, and npm for what it tests, from Debian's packages
	@missing=""; \
	test -x /usr/bin/chromium || missing="chromium fonts-dejavu-core"; \
	command -v npm > /dev/null || missing="$$missing npm"; \
	test -z "$$missing" || { \
		{ test "$$(id -u)" = 0 && command -v apt-get > /dev/null; } || { \
			echo "test-browser needs /usr/bin/chromium and npm: install them (apt-get install $$missing), or say make chromium as root." >&2; \
			exit 1; }; \
		apt-get update -qq && apt-get install --yes --no-install-recommends -qq $$missing; }

mutations: $(VENV)/.dev  ## break each rule on purpose and see that the tests notice; takes minutes
	$(BIN)/python tests/mutations.py

lint: $(VENV)/.dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

site: $(VENV)/.dev  ## the documentation as pages, to ./site/, and the tutorials as executed notebooks, in minutes: open site/index.html
	$(BIN)/python docs/generate_llms.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	$(BIN)/python docs/generate_notebooks.py site/notebooks

release-check: $(BIN)/python  ## wheel and sdist in empty environments, on the lowest and the newest PyTorch: gigabytes, minutes
	$(BIN)/python tests/release_check.py --python $(PYTHON) --newest $(NEWEST)

classifiers: $(VENV)/.dev  ## which classifiers are explained: hours, and goes on where it was interrupted
	$(BIN)/python benchmarks/classifiers.py

bench: $(VENV)/.dev  ## what explanations cost beside the peers, to docs/benchmarks.md: an hour on a quiet machine
	@$(INSTALL) --editable ".[bench]" | $(SHOW)
	$(BIN)/python benchmarks/speed.py --out build/bench --batches 8,1 --targets 5,20 --more resnet50,vgg16 --write

venv: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp is as new as the last installation; only a change of what is declared installs again.
$(VENV)/.models: $(DECLARED) | $(BIN)/python
	@echo "Installing clarp with its models into $(VENV) (once; PyTorch is large, so this takes minutes) ..."
	@$(INSTALL) --editable ".[models]" | $(SHOW)
	@touch $@

$(VENV)/.dev: $(DECLARED) | $(BIN)/python
	@echo "Installing clarp with the developers' tools into $(VENV) (once; PyTorch is large, so this takes minutes) ..."
	@$(INSTALL) --editable ".[dev]" | $(SHOW)
	@touch $@ $(VENV)/.models
