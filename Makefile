# On a fresh machine with python3 (3.10 or newer), make and a C++ compiler:
#
#   make demo    sets everything up in .venv and shows what NALU is for
#   make test    the tests, in minutes; make test-all those that take longer too
#
# PYTHON=/path/to/python makes .venv with another Python, CXX=clang++ builds with another compiler.

PYTHON ?= python3
VENV := .venv
# Those of `make pythons`; empty takes all that are claimed.
PYTHONS :=
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SHORT := cells dispatch functional gradients layouts modules packaging reference special_values
SOURCES := $(shell find csrc -type f 2>/dev/null)
EXTENSION := $(wildcard nalu_kernels/_cpu*.so)

# torch's build looks for ninja on the PATH; $(CURDIR) may hold spaces, so nothing else uses it.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo experiments test test-long test-all short pythons constraints oldest-triton lint
.PHONY: docs bench fuzz
.PHONY: sanitize gpu wheel clean distclean force

help:
	@echo "make demo       three experiments in some minutes: what NACs and NALUs do that others do not"
	@echo "make experiments   all experiments in their small size, and examples/RESULTS.md"
	@echo "make test       the tests: every pair of options, in 10 minutes on two cores"
	@echo "make test-all   all tests: every triple of options, and every row of tiles ahead of time"
	@echo "make short      the layers, their gradients and the packaging: a few minutes of tests"
	@echo "make pythons    make short on each Python that is claimed and found; PYTHONS=\"3.10 3.13\""
	@echo "make constraints   does constraints.txt resolve on each of them? (needs a package index)"
	@echo "make oldest-triton   does the oldest Triton claimed compile the kernels? (needs the index too)"
	@echo "make lint       ruff and mypy"
	@echo "make docs       build/docs: the pages and the API reference as a site; a warning is an error"
	@echo "make bench      the speed of this machine against eager PyTorch and torch.compile"
	@echo "make fuzz       10,000 random layers and sweeps, and as many wrong calls"
	@echo "make sanitize   the tests of the C++ code under the compiler's sanitizers"
	@echo "make gpu        tests, sanitizer and benchmarks on this machine's GPU, within 9 minutes"
	@echo "make wheel      dist/: sdist and wheel, checked, and tested where they are installed"
	@echo "make clean      removes what was built; make distclean removes .venv* too"

demo: $(STAMP)
	$(RUN) -m nalu_kernels identity
	$(RUN) -m nalu_kernels single
	$(RUN) -m nalu_kernels digits

# Goes on where an earlier call was interrupted; `rm -r results` starts anew.
experiments: $(STAMP)
	$(RUN) -m nalu_kernels all --out results
	$(RUN) -m nalu_kernels report results --out examples

test: $(STAMP)
	$(RUN) -m pytest -n auto --dist worksteal -m "not long"

test-long: $(STAMP)
	$(RUN) -m pytest -n auto --dist worksteal -m long

test-all: test test-long

short: $(STAMP)
	$(RUN) -m pytest -n auto --dist worksteal -m "not long" $(SHORT:%=tests/test_%.py)

pythons:
	$(PYTHON) tools/pythons.py $(PYTHONS)

constraints: $(STAMP)
	$(RUN) tools/check_constraints.py

oldest-triton: $(STAMP)
	$(RUN) tools/oldest_triton.py

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(STAMP)
	$(RUN) -m sphinx -W --keep-going --nitpicky --quiet -b html docs build/docs

bench: $(STAMP)
	$(RUN) -m pytest benchmarks

fuzz: $(STAMP)
	NALU_KERNELS_FUZZ_EXAMPLES=10000 $(RUN) -m pytest -n auto tests/test_fuzz.py tests/sweep/test_fuzz_sweep.py

sanitize: $(STAMP)
	$(RUN) tools/sanitize.py

gpu: $(STAMP)
	$(RUN) -m benchmarks.gpu

wheel: $(STAMP)
	$(RUN) tools/wheel.py

# Installs again when an input has changed or the binary is gone; only what changed is compiled.
$(STAMP): pyproject.toml setup.py setup_cuda.py constraints.txt $(SOURCES) $(if $(EXTENSION),,force)
	@for name in $${CXX:-c++ g++ clang++}; do \
		command -v "$$name" >/dev/null && exit 0; \
		[ -z "$$CXX" ] || break; \
	done; \
	echo "Missing: a C++ compiler (looked for $${CXX:-c++, g++, clang++})." >&2; \
	echo "Install one (Debian, Ubuntu: g++; Fedora: gcc-c++; macOS: xcode-select --install) or set CXX." >&2; \
	exit 1
	@$(RUN) -c "import pip" 2>/dev/null && exit 0; \
	if ! command -v "$(PYTHON)" >/dev/null; then \
		echo "Missing: $(PYTHON). Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	if ! "$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 10))"; then \
		echo "Too old: $(PYTHON) is $$("$(PYTHON)" --version 2>&1); 3.10 or newer is needed. Name one: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	if ! "$(PYTHON)" -c "import venv, ensurepip" 2>/dev/null; then \
		echo "Missing: the venv and ensurepip modules of $(PYTHON) (Debian, Ubuntu: apt install python3-venv)." >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$(PYTHON)" --version)"; \
	"$(PYTHON)" -m venv --clear $(VENV)
	@echo "Installing torch and build tools (a few minutes the first time)"
	$(RUN) -m pip install -c constraints.txt pip torch setuptools ninja
	@echo "Compiling the operators and installing the rest"
# compat: a path in site-packages, which mypy, pyright and editors read; else it is an import hook.
	$(RUN) -m pip install --quiet --no-build-isolation -c constraints.txt --config-settings editable_mode=compat -e ".[experiments,test,docs,dev]"
	@touch $@

clean:
	rm -rf build dist *.egg-info nalu_kernels/_*.so nalu_kernels/_*.sources $(STAMP)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -not -path "./.venv*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-*
