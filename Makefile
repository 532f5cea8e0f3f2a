# The developer's commands. Each makes the environment it needs in .venv; repeating one costs no time.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

TORCH ?= torch==2.13.0
EXAMPLES ?= 200
FUZZ_FILES ?= 1000000
WORKERS ?= 2

.PHONY: run test test-slow test-browser test-openai test-lm-eval test-fuzz-http fuzz check lint docs bench wheel clean

run: $(VENV)/installed  ## tell a story with the bundled model
	@$(BIN)/llamita run -i "Once upon a time" -t 0.8 -n 0

test: $(VENV)/developed  ## all tests, in two processes: WORKERS=4 on a large machine, 0 under a debugger
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/developed  ## what takes minutes: a hundred kills, the real transformers
	$(BIN)/python -m pip install --quiet --group slow
	@$(BIN)/python -m pytest -m slow

test-browser: $(VENV)/developed  ## the page in a real Chromium: the system's, else one that playwright brings
	@command -v chromium chromium-browser google-chrome >/dev/null || $(BIN)/python -m playwright install --with-deps chromium
	@$(BIN)/python -m pytest -m browser tests/browser

test-openai: $(VENV)/suites/openai/installed $(VENV)/developed  ## openai-python's own tests against llamita serve
	@$(<D)/bin/python tools/openai_suite.py --llamita $(BIN)/llamita

test-lm-eval: $(VENV)/suites/lm-eval/installed $(VENV)/developed  ## lm-eval through llamita serve and without it
	@$(<D)/bin/python tools/lm_eval_suite.py --llamita $(BIN)/llamita

test-fuzz-http: $(VENV)/suites/fuzz-http/installed $(VENV)/developed  ## schemathesis over llamita serve's own description: EXAMPLES=5000
	@$(<D)/bin/python tools/fuzz_http.py --llamita $(BIN)/llamita --examples $(EXAMPLES)

fuzz: $(VENV)/developed  ## a million damaged files of each format: FORMAT=gguf FUZZ_FILES=10000 SEED=7 FIRST=500
	@PYTHONPATH=tests:tests/formats $(BIN)/python -m fuzz $(FORMAT) --files $(FUZZ_FILES) \
	  $(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST))

check: lint test  ## what CI runs; the import rules are tests/test_architecture.py

lint: $(VENV)/developed  ## style, types, and docs that match --help
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tools/write_cli_reference.py --check

docs: $(VENV)/developed  ## write docs/cli.md again from --help
	$(BIN)/python tools/write_cli_reference.py

bench: $(VENV)/developed  ## measure this machine
	@$(BIN)/llamita bench

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"  # the first that knows dependency groups

$(VENV)/suites/%/installed: pyproject.toml  # what other people's suites need, each in an environment of its own
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(if $(filter lm-eval,$*),$(@D)/bin/python -m pip install --quiet "$(TORCH)")
	$(@D)/bin/python -m pip install --quiet --group $*
	@touch $@

$(VENV)/installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

wheel: $(VENV)/developed  ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

$(VENV)/developed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[train,data,serve,sweep,probe]" --group dev
	@touch $@
