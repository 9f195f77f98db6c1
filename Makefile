# make app    environment, dependencies, start
# make test   all tests, the browser's too
# make lint   ruff
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test lint benchmark

app: $(VENV)/app.stamp
	$(BIN)/python app.py

# A process of tests that crashes ends them. Were it replaced, pytest-xdist would wait for ever if few files are left.
test: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmark: $(VENV)/dev.stamp
	$(BIN)/python -m tests.benchmarks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/app.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
