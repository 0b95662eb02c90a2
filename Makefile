# make demo    the main job: train and test on the bundled dataset, a table of results at the end
# make demo-languages   what readers of a language get that no training reader reads, as a picture (some minutes)
# make test    all tests; make test-fast   all but the slow ones
# make lint    ruff and mypy
# make tables  the files of default settings and the tables of keys, from the typed settings
# make models  the table of RecBole's models in docs/models.md (some minutes)
# make test-matrix   RecBole's own models under oldest and newest libraries (takes long, needs much disk)
# Each sets up what it needs in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# More threads than cores slow torch down many times; two are enough for every job here.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM := false
# As many processes as cores, but at most four: each takes more than a gigabyte of memory.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4

.PHONY: demo demo-languages test test-fast lint tables models test-matrix clean

$(VENV)/demo.stamp: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[offline]"
	touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[offline,encoders,text,translate,tune,export,serve,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt rectools typeguard
	touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/python run_recbole_xling.py

demo-languages: $(VENV)/demo.stamp
	$(BIN)/python run_recbole_xling.py demo --languages

test: $(VENV)/test.stamp
	$(PYTEST)

test-fast: $(VENV)/test.stamp
	$(PYTEST) -m "not slow"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tables: $(VENV)/demo.stamp
	$(BIN)/python docs/write_tables.py

models: $(VENV)/demo.stamp
	$(BIN)/python benchmarks/recbole_models.py

test-matrix: $(VENV)/test.stamp
	$(BIN)/python tests/matrix/run.py

clean:
	rm -rf $(VENV) .matrix build *.egg-info
