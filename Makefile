# `make quickstart` and `make test` do everything on a machine that has Python 3.11 or later and make.
PYTHON ?= python3
EXTRAS ?=
VENV   ?= .venv
# One of its own, so that nothing comes to need torch unnoticed.
COMPARE_VENV ?= .venv-compare
DATA   ?= data
RUN    ?= runs/quickstart
# Tests run in as many processes as there are cores, four at most. TESTS="-n 0" for one, where a debugger can get in.
TESTS  ?= -n logical --maxprocesses 4 --dist worksteal
# Which tests "make test" runs. MARKS="not docs" adds those of "make test-long", in one go.
MARKS  ?= not docs and not long

BIN   := $(VENV)/bin
comma := ,

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-long gpu-test compare release-check faults wheel-test docs notebook release

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit("facefeat_jax needs Python 3.11 or later, this is %d.%d: make PYTHON=<a newer one>" % v[:2] if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Without compiling: ten thousand modules, of which few are ever imported; those are compiled then.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

# One stamp for each set of extras, so that asking for others installs them (commas stand as dots in its name).
$(VENV)/.ready-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the packages of '$(subst .,$(comma),$*)' into $(VENV), about 1 GB; this takes minutes"
	$(PIP) -e '.[$(subst .,$(comma),$*)]'
	@touch $@

# What work on the project takes: extras, and groups of tools that are not published.
tools-test     := -e '.[train,faces,onnx,stablehlo,video,formats,serve,shards,hub]' --group test
tools-gpu      := -e '.[train,cuda]' --group test
tools-slow     := $(tools-test) -e '.[ray,s3]' --group slow
tools-compare  := -e '.[train,faces,compare]' --group test --group compare
tools-docs     := -e . --group docs
tools-release  := --group release
tools-notebook := -e '.[train]' --group notebook

# A fresh environment's pip may be older than 25.1, which is the first to know --group.
$(VENV)/.tools-%: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --upgrade pip
	$(PIP) $(tools-$*)
	@touch $@

quickstart: $(VENV)/.ready-train$(if $(EXTRAS),.$(subst $(comma),.,$(EXTRAS))) ## train, evaluate, report and predict on the drawn data set (EXTRAS=cuda on a GPU)
	$(BIN)/facefeat prepare avatars --data-dir $(DATA)
	$(BIN)/facefeat train avatars --data-dir $(DATA) --run $(RUN) --overwrite
	$(BIN)/python scripts/draw_avatars.py --out $(RUN)/pictures
	@echo "The trained model, evaluated from its checkpoint:"
	$(BIN)/facefeat evaluate $(RUN)
	@echo "report: $(RUN)/report.html"
	@echo "curves: $(RUN)/curves.png"
	@echo "Four pictures that it has not seen (their names are the truth):"
	$(BIN)/facefeat predict $(RUN) $(RUN)/pictures/*.png
	@echo "Next: source $(BIN)/activate; facefeat predict $(RUN) $(RUN)/pictures --draw labelled"

test: $(VENV)/.tools-test ## lint, check types and imports between rooms, run all tests but the long ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(TESTS) -m "$(MARKS)"

test-long: $(VENV)/.tools-test ## the tests that train, export and evaluate whole models
	$(BIN)/python -m pytest $(TESTS) -m "long and not docs"

# One process: each would take most of the GPU's memory. Bits are compared, so operations add up in a fixed order.
gpu-test: $(VENV)/.tools-gpu ## the tests that are to be run on a GPU as well (some five minutes)
	XLA_FLAGS=--xla_gpu_deterministic_ops=true $(BIN)/python -m pytest -n 0 -m gpu

# XLA_FLAGS is empty, not unset: tests would set flags that compile fast; here programs are compiled as users' are.
compare: ## compare with PyTorch, live (SAMPLE=1 for a part; Python 3.11; sets up .venv-compare with torch, torchvision and timm)
	$(MAKE) --no-print-directory VENV=$(COMPARE_VENV) $(COMPARE_VENV)/.tools-compare
	XLA_FLAGS= $(COMPARE_VENV)/bin/python -m pytest tests/compare $(TESTS)$(if $(SAMPLE), -m "not whole")

# Whatever takes longer than CI may; compare in full sets up its own environment.
release-check: $(VENV)/.tools-test $(VENV)/.tools-slow ## before a release: the slow tests, all of compare, the commands at real size on few and busy cores (hours)
	$(BIN)/python -m pytest --slow -m slow $(TESTS)
	$(MAKE) --no-print-directory compare SAMPLE= TESTS="$(TESTS) --slow"
	$(BIN)/python scripts/lab/release_check.py $(RELEASE_CHECK)

faults: $(VENV)/.tools-test ## run the fault campaigns in full (hours) and write docs/reliability.md
	$(BIN)/python scripts/lab/run_faults.py run --out docs/benchmarks/faults
	$(BIN)/python scripts/lab/run_faults.py report docs/benchmarks/faults/*.json --out docs/reliability.md

wheel-test: $(VENV)/.tools-test ## build the wheel and try it in an empty environment, away from the checkout
	$(BIN)/python scripts/try_wheel.py

docs: $(VENV)/.tools-docs $(VENV)/.tools-test ## build the site of docs/ in build/site, any warning an error, and run every block of it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@! grep -rlE "src=.?https?://|@import.*https?://" build/site --include=*.html --include=*.css || { echo "these pages load something from elsewhere"; false; }
	$(BIN)/python -m pytest $(TESTS) -m docs

notebook: $(VENV)/.tools-notebook ## make the notebook of docs/ from its script
	$(BIN)/python scripts/build_notebook.py

# Twice, in environments of their own, under the pinned build tools and the date of the commit.
release: export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
release: $(VENV)/.tools-release ## build what is published, twice, and compare: byte for byte the same
	rm -rf build/release && mkdir -p build/release
	for n in 1 2; do SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir build/release/$$n . >build/release/$$n.log || { cat build/release/$$n.log; exit 1; }; done
	cd build/release/1 && sha256sum *.whl *.tar.gz >../SHA256SUMS
	cd build/release/2 && sha256sum --check --strict ../SHA256SUMS
