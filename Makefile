# Each target is the only command that a fresh machine with Python 3.10+ needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := build/bench-venv
AUDIT_VENV := build/audit-venv
GCP_VENV := build/gcp-venv

.PHONY: demo test check audit soak engines dataflow browser versions bench docs clean

demo: $(READY)  ## the main job, with predictions on the screen and on disk
	$(BIN)/modelbeam describe --model iris_model.iris_predict:IrisModel
	$(BIN)/modelbeam predict --model iris_model.iris_predict:IrisModel \
		--input data/input.json --output demo-output/predictions.jsonl --keep all --overwrite
	@echo; echo "demo-output/predictions.jsonl:"; head -n 5 demo-output/predictions.jsonl
	$(BIN)/modelbeam predict --model iris_ml_base.model:IrisModel \
		--input data/input-with-errors.jsonl --output demo-output/with-errors --overwrite
	@echo; echo "demo-output/with-errors:"; ls demo-output/with-errors
	@head -n 2 demo-output/with-errors/errors-00000-of-00001.jsonl

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(READY)  ## lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

audit: $(READY)  ## the installed packages against the known vulnerabilities; wants the network
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet pip-audit
	$(AUDIT_VENV)/bin/python tests/audit.py \
		$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

soak: $(READY)  ## nasty models 50 times beside two busy loops, and examples that no run had before; an hour
	MODELBEAM_SOAK_RUNS=50 $(BIN)/python -m pytest tests/test_soak.py
	for run in 1 2 3 4 5; do MODELBEAM_SOAK_RUNS=1 $(BIN)/python -m pytest -m hypothesis || exit 1; done

engines: $(READY)  ## tests on real engines; wants Java, Maven and Go besides Python
	$(BIN)/python -m engines prepare
	$(BIN)/python -m pytest tests/engines -n 2 --dist loadfile
	MODELBEAM_TEST_STORES=all $(BIN)/python -m pytest tests/test_stores.py -n 2

dataflow: $(READY)  ## Dataflow's tests against a stand-in, with Google's libraries, which slow all else down
	$(PYTHON) -m venv $(GCP_VENV)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> $$($(GCP_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth
	$(GCP_VENV)/bin/python -m pip install --quiet 'apache-beam[gcp]' gcp-storage-emulator
	$(GCP_VENV)/bin/python -m pytest tests/test_dataflow.py -n 2

browser: $(READY)  ## the report's page in Chromium, screenshots in build/screenshots; wants chromium and chromedriver
	$(BIN)/python -m pytest tests/browser

versions:  ## the oldest and the newest Beam and Python that are allowed and can be found
	$(PYTHON) tests/versions.py

bench: build/bench-venv/.ready  ## all benchmarks, over an hour; those on engines want Java, Maven and Go
	$(BENCH_VENV)/bin/python benchmarks/run.py all

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)  ## write the generated pages again, and all pages as a site into build/site
	$(BIN)/python docs/generate.py
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

$(READY): pyproject.toml examples/iris_model/pyproject.toml examples/iris_ml_base/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]' ./examples/iris_model ./examples/iris_ml_base
	touch $@

build/bench-venv/.ready: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet -e . -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) build demo-output
