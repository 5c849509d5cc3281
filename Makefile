# make demo [DATA=groceries|imagenette|cifar10|FOLDER]   from nothing to a served demo
# make figure3 [DATA=caltech101|imagenette|FOLDER]       first-layer kernels as in figure 3 of the paper, with 3 seeds
# make test                                              the tests that are not slow, on up to four cores
# make check                                             every test, ruff and mypy
# make sanitize                                          native.c under AddressSanitizer and UndefinedBehaviorSanitizer
# make lowest                                            the tests that are not slow with every dependency at its lowest version
# make requirements                                      the versions that the image installs, anew: docker/requirements.txt
# make pages                                             every command of every page, on small made-up photographs
# make bench-search                                      searches beside FAISS's; for a quiet machine
# make bench-service                                     the service under load; for a quiet machine
# make bench-duplicates DATA=FOLDER MODEL=FOLDER       near-duplicates found by FC7 and by perceptual hashes
# make bench-atlas DATA=FOLDER MODEL=FOLDER              what the unit atlas adds to a build
# make bench-train                                       training steps beside plain PyTorch's; for a quiet machine
# make fuzz-files                                        an hour of damaged image files for the decoder
# make foreign-files                                     test images of Pillow and of three more projects, downloaded by pip
# make bench-page                                        how soon the page can be used, with 10 000 items; for a quiet machine
# make screenshots [PHOTOGRAPH=FILE]                     the documentation's pictures of the page, of the demo's index
# make audit                                             known vulnerabilities of what is installed, and of docker/requirements.txt
# make attack                                            attacks on a running service; for a quiet machine
# make fuzz-service                                      thousands of hostile requests to a running service
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
NATIVE := training/network/native.c indexer/scans/native.c
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --durations 15 --durations-min 5
export DATA ?= groceries

.PHONY: demo figure3 test check sanitize lowest pages requirements audit attack bench-search bench-service bench-train bench-duplicates \
	bench-atlas bench-page screenshots fuzz-files fuzz-service foreign-files

demo: .venv/demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" FC7_DEMO_DATA="$$DATA" docker/demo.sh

figure3: export DATA := $(if $(filter file,$(origin DATA)),caltech101,$(DATA))
figure3: .venv/demo
	@photographs=$$DATA; if [ ! -d "$$DATA" ]; then photographs=var/$$DATA; \
		$(BIN)/python -m training.datasets --data "$$DATA" --out "$$photographs" || exit; fi; \
	$(BIN)/python -m training.figure3 --data "$$photographs" --out "var/figure3/$$(basename "$$photographs")"

# two threads a process on any machine: what shares its work among threads does, and the processes leave each other room
test check lowest: export OMP_NUM_THREADS := 2
test check lowest: export OMP_WAIT_POLICY := passive

test: .venv/dev
	$(BIN)/python $(PYTEST) -m 'not slow'

check: .venv/dev
	$(BIN)/python $(PYTEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

sanitize: .venv/dev
	$(BIN)/python tests/sanitize.py

lowest: .venv-lowest/dev
	$(LOWEST)/python $(PYTEST) -m 'not slow'

requirements: .venv/dev
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make requirements' --extra demo --output-file docker/requirements.txt pyproject.toml

# --strict: what the service of vulnerabilities does not know is an error too, and not left out
audit: .venv/dev .venv-audit/done
	.venv-audit/bin/pip-audit --strict --disable-pip --requirement docker/requirements.txt
	$(BIN)/python -m pip list --format freeze --exclude-editable >.venv-audit/environment.txt
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps --requirement .venv-audit/environment.txt

pages: .venv/dev
	$(BIN)/python -m tests.pages

attack: .venv/dev
	$(BIN)/python tests/benchmarks/attack_service.py

bench-search: .venv/dev
	$(BIN)/python tests/benchmarks/bench_search.py

bench-service: .venv/dev
	$(BIN)/python tests/benchmarks/bench_service.py

bench-atlas: .venv/dev
	$(BIN)/python tests/benchmarks/bench_atlas.py --data $(DATA) --model $(MODEL)

bench-duplicates: .venv/dev
	$(BIN)/python tests/benchmarks/bench_duplicates.py --data $(DATA) --part $(PART) --model $(MODEL)

fuzz-files: .venv/dev
	$(BIN)/python tests/benchmarks/fuzz_files.py

foreign-files: .venv/dev
	$(BIN)/python tests/benchmarks/foreign_files.py

fuzz-service: .venv/dev
	$(BIN)/python tests/benchmarks/fuzz_service.py

bench-page: .venv/dev
	$(BIN)/python tests/benchmarks/bench_page.py

screenshots: PHOTOGRAPH ?= $(firstword $(wildcard var/images/test/*/*))
screenshots: .venv/dev
	$(BIN)/python -m tests.screenshots --photograph "$(PHOTOGRAPH)"

bench-train: .venv/dev
	$(BIN)/python tests/benchmarks/bench_train.py

.venv/demo: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar on --editable '.[client,demo]'
	@touch $@

.venv/dev: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@

.venv-audit/done:
	$(PYTHON) -m venv --clear .venv-audit
	.venv-audit/bin/python -m pip install --quiet 'pip-audit>=2.9'
	@touch $@

.venv-lowest/dev: pyproject.toml tests/lowest.py $(NATIVE)
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST)/python -m pip install --quiet packaging
	$(LOWEST)/python tests/lowest.py >.venv-lowest/constraints.txt
	$(LOWEST)/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[demo,dev]'
	@touch $@
