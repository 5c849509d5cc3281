# make demo [DATA=groceries|imagenette|cifar10|FOLDER]   from nothing to a served demo
# make test                                              the fast suite
# make check                                             the same, ruff and mypy
# make lowest                                            the fast suite with every dependency at its lowest version
# make requirements                                      the versions that the image installs, anew: docker/requirements.txt
# make pages                                             every command of every page, on small made-up photographs
# make bench-search                                      searches beside FAISS's; for a quiet machine
# make bench-service                                     the service under load; for a quiet machine
# make bench-train                                       training steps beside plain PyTorch's; for a quiet machine
# make attack                                            attacks on a running service; for a quiet machine
# make fuzz-service                                      thousands of hostile requests to a running service
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
NATIVE := training/network/native.c indexer/scans/native.c
export DATA ?= groceries

.PHONY: demo test check lowest pages requirements attack bench-search bench-service bench-train fuzz-service

demo: .venv/demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" FC7_DEMO_DATA="$$DATA" docker/demo.sh

test: .venv/dev
	$(BIN)/python -m pytest

check: test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lowest: .venv-lowest/dev
	$(LOWEST)/python -m pytest

requirements: .venv/dev
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make requirements' --extra demo --output-file docker/requirements.txt pyproject.toml

pages: .venv/dev
	$(BIN)/python -m tests.pages

attack: .venv/dev
	$(BIN)/python tests/benchmarks/attack_service.py

bench-search: .venv/dev
	$(BIN)/python tests/benchmarks/bench_search.py

bench-service: .venv/dev
	$(BIN)/python tests/benchmarks/bench_service.py

fuzz-service: .venv/dev
	$(BIN)/python tests/benchmarks/fuzz_service.py

bench-train: .venv/dev
	$(BIN)/python tests/benchmarks/bench_train.py

.venv/demo: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on --editable '.[demo]'
	@touch $@

.venv/dev: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@

.venv-lowest/dev: pyproject.toml tests/lowest.py $(NATIVE)
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST)/python -m pip install --quiet packaging
	$(LOWEST)/python tests/lowest.py >.venv-lowest/constraints.txt
	$(LOWEST)/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[demo,dev]'
	@touch $@
