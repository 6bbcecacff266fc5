# Everything runs in a virtual environment of its own: .venv (or VENV=path).
VENV ?= .venv
PYTHON ?= python3
# Index to take torch from; where the default one has CUDA builds only, name the index of CPU builds.
TORCH_INDEX ?=
BIN := $(VENV)/bin

.PHONY: demo demo-studio demo-server try test screenshots docs dist release-check test-lowest test-newest lint bench bench-full clean

$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet -c constraints.txt --no-deps lmms-eval
	touch $@

$(VENV)/server: $(VENV)/core
	$(BIN)/pip install --quiet -c constraints.txt -e ".[server]"
	touch $@

demo: $(VENV)/core
	$(BIN)/semhitok reconstruct examples/photographs --out demo

# A server on a free port, asked about a picture; ends by itself. `semhitok serve` runs on.
demo-server: $(VENV)/server
	$(BIN)/python examples/server_demo.py

$(VENV)/studio: $(VENV)/core
	$(BIN)/pip install --quiet -c constraints.txt -e ".[studio]"
	touch $@

# A page at http://127.0.0.1:7860 until Ctrl-C.
demo-studio: $(VENV)/studio
	$(BIN)/semhitok studio

$(VENV)/onnx: $(VENV)/core
	$(BIN)/pip install --quiet -c constraints.txt -e ".[onnx]"
	touch $@

# The page docs/try/ with the tokenizer and onnxruntime-web beside it (docs/export.md); needs npm.
try: $(VENV)/onnx
	$(BIN)/python docs/try_page.py

# Two processes, each with whole files: fixtures of a module are built once.
test: $(VENV)/dev lint
	$(BIN)/pytest -n 2 --dist loadfile

# The pictures of docs/studio.md and docs/export.md, from Chromium.
screenshots: $(VENV)/dev
	SEMHITOK_SCREENSHOTS=docs/images $(BIN)/pytest tests/studio/test_page.py tests/docs/test_try_page.py

$(VENV)/docs: $(VENV)/dev
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

# The site, in site/: notebooks executed, warnings are errors; then links, pages and search are tested.
docs: $(VENV)/docs try
	$(BIN)/python docs/build.py
	$(BIN)/pytest -m site tests/site

# Wheel and sdist, in dist/, and the wheel that the sdist gives; without network.
dist: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/pip wheel --quiet --no-index --no-deps --no-build-isolation -w dist/from-sdist dist/*.tar.gz

# The wheel in a fresh environment (dist/venv), away from the repository: reconstruct, generate, chat.
release-check: dist
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	dist/venv/bin/pip install --quiet -c constraints.txt dist/*.whl
	cd dist/venv && bin/python ../../tests/release/installed.py ../../examples/photographs/chelsea.jpg

# What the lowest and the newest versions that pyproject allows must pass; in environments of their own.
CORE_TESTS := tests/nn tests/quantizers tests/losses tests/tokenizers/semhitok tests/inference tests/mllm/test_modeling.py tests/mllm/test_processing.py
CORE_TEST_TOOLS := pytest hypothesis scipy scikit-learn einx loguru
# Without their dependencies, among which a newer einops than the lowest allowed one is.
REFERENCES := --no-deps 'vector-quantize-pytorch>=1.32,<1.33' torch-einops-utils

test-lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/release/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet -c .venv-lowest/constraints.txt -e . $(CORE_TEST_TOOLS)
	.venv-lowest/bin/pip install --quiet $(REFERENCES)
	.venv-lowest/bin/python -m pytest $(CORE_TESTS)

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade -e . $(CORE_TEST_TOOLS)
	.venv-newest/bin/pip install --quiet $(REFERENCES)
	.venv-newest/bin/python -m pytest $(CORE_TESTS)

lint: $(VENV)/dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

# Ratios against peers and floors: minutes. Results go to runs/bench.
bench: $(VENV)/dev
	$(BIN)/python -m benchmarks

# One optimizer step of every stage at the paper's full size: minutes, and 10 GB of memory.
bench-full: $(VENV)/dev
	$(BIN)/python benchmarks/full_size.py

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest demo demo-server site dist docs/notebooks
