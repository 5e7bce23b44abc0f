# Every target sets up what it needs: Python 3.11 or newer and make are enough.
PYTHON ?= python3
# The torch that the tests ran with. On Linux this is the CUDA build; for the CPU build:
#   make setup TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
BIN := .venv/bin
PUZZLE ?= Sudoku:\n0200\n4302\n3401\n0004

.PHONY: setup check test test-slow demo bench docs

setup: .venv/ready

.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

demo: setup
	$(BIN)/attn-sampler generate --watch "$$(printf '$(PUZZLE)')"

test: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n logical

# What takes minutes and is not in `make test`: every program and puzzle of the data sets, where their files are.
test-slow: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n logical -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python recipes/reference.py --check

bench: setup
	$(BIN)/attn-sampler bench attention

docs: setup
	$(BIN)/python recipes/reference.py
	$(BIN)/python recipes/doc_output.py
