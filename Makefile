# Each target stands alone: on a machine with only Python (3.10 to 3.12) it sets up .venv from the lock first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-all test-browser docs lint setup lock clean

# Prune once, transfer to two tasks: one to two minutes on two cores.
quickstart: setup
	$(BIN)/python tools/transfer.py configs/quickstart.py --resume

# One thread a worker: torch's threads would wait for each other.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not alone and not slow and not browser"

# The same and the tests marked "slow": large networks under every method; then what needs the machine to itself.
test-all: test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not alone"
	$(BIN)/python -m pytest -m "slow and alone"
	$(BIN)/python -m pytest -m browser -rs

# The report's page in headless Chromium; skipped where that, or the packages of the extra "browser", is not installed.
test-browser: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs

# The guide and the reference, as web pages. A broken link or reference is an error.
docs: setup
	$(BIN)/python -m sphinx -W --keep-going --quiet -c docs . build/docs
	@echo "documentation: build/docs/docs/index.html"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/ready

# The stamp comes last, so a set-up that was stopped half-way is done again.
.venv/ready: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# Torch and torchvision must match; everything else is resolved anew.
lock: setup
	printf 'torch==2.11.0\ntorchvision==0.26.0\n' > .venv/pins.txt
	$(BIN)/uv pip compile setup.cfg --extra test --extra docs --universal --python-version 3.10 --constraint .venv/pins.txt \
		--no-header --no-annotate --output-file requirements.lock

clean:
	rm -rf .venv build dist *.egg-info
