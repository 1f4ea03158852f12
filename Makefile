# Everything here uses the virtual environment .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run board test test-slow test-browser test-faults test-fuzz test-peers check bench
.DEFAULT_GOAL := run

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[dev,joblib,slurm,arrays,export]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/pip install --quiet --no-deps pythae==0.1.2
	touch $@

run: $(VENV)/installed          ## train the default on the embedded digits
	$(BIN)/python run.py
	@echo "See it in TensorBoard with: make board"

board: $(VENV)/installed        ## TensorBoard over every run, on this machine only
	mkdir -p .board && ln -sfn ../outputs .board/runs && ln -sfn ../multirun_sweeps .board/sweeps
	$(BIN)/tensorboard --host 127.0.0.1 --logdir .board

test: $(VENV)/installed-dev     ## the test suite, under four minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-slow: $(VENV)/installed-dev ## the tests that train for minutes
	$(BIN)/pytest -m slow

test-faults: $(VENV)/installed-dev ## runs killed, stopped and starved of disk space at random moments, and resumed
	$(BIN)/python tests/faults.py

test-fuzz: $(VENV)/installed-dev ## hostile settings, data, checkpoints and run directories
	FUZZ=1 $(BIN)/pytest -s tests/test_fuzz.py

test-browser: $(VENV)/installed-dev ## the report and TensorBoard in a headless Chromium from the system
	$(BIN)/pip install --quiet selenium
	$(BIN)/pytest -rs -m browser tests/test_browser.py

test-peers: $(VENV)/installed-dev ## models of pythae, diffusers and Lightning, trained by these, diagnosed
	$(BIN)/pip install --quiet --editable ".[peers]"
	$(BIN)/pip install --quiet --no-deps pythae==0.1.2
	$(BIN)/pytest -m peers tests/diagnose/test_peers.py

check: $(VENV)/installed-dev    ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench  ## the numbers of docs/performance.md and docs/scaling.md, hours on an idle machine; ARGS="throughput --rounds 3"
	$(BIN)/python -m benchmarks $(ARGS)
