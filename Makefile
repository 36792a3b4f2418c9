# `make` says what there is. Every target sets up what it needs, once: a virtual environment in .venv
# with the versions in requirements.txt.
#
#   PYTHON=...         the Python 3.11 to make .venv from, where it is not found by itself
#   TORCH_INSTALL=...  options for pip when it installs torch, e.g. to take a CPU build, which saves some
#                      gigabytes on a machine without a GPU

.DEFAULT_GOAL := help
SHELL := /bin/bash
READY := .venv/ready-$(shell cksum < requirements.txt | cut -d' ' -f1)
VENV_BIN := $(CURDIR)/.venv/bin
export PATH := $(VENV_BIN):$(PATH)

# DVC keeps experiments as commits. Where git knows nobody by name, they are nobody's.
ifeq (,$(and $(shell git config user.name),$(shell git config user.email)))
export GIT_AUTHOR_NAME ?= score
export GIT_AUTHOR_EMAIL ?= score@localhost
export GIT_COMMITTER_NAME ?= $(GIT_AUTHOR_NAME)
export GIT_COMMITTER_EMAIL ?= $(GIT_AUTHOR_EMAIL)
endif

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: repro
repro: $(READY) ## From data to report, what is not up to date; profile=NAME selects a profile first
ifdef profile
	@python -m tasks.commands.profiles '$(profile)'
	@dvc exp run -S 'profile=$(profile)'
else
	@dvc repro
endif
	@python -m tasks.commands.summary

.PHONY: smoke
smoke: $(READY) ## Any profile at toy size (a local model as it is) in a checkout of its own: profile=NAME, or all
ifeq ($(profile),all)
	@for name in $(basename $(notdir $(wildcard conf/profile/*.yaml))); do \
	    echo "== $$name"; $(MAKE) --no-print-directory smoke "profile=$$name" || exit; \
	done
else
	@python -m tasks.commands.profiles --known '$(or $(profile),default)'; code=$$?; \
	if [ $$code = 77 ]; then exit 0; elif [ $$code != 0 ]; then exit $$code; fi; \
	untracked=(); \
	while IFS= read -r -d '' path; do untracked+=(-C "$${path%/}"); done \
	    < <(git ls-files --others --exclude-standard --directory -z); \
	dvc exp run --temp -S 'profile=$(or $(profile),default)' -S smoke=yes "$${untracked[@]}"
endif

.PHONY: plan
plan: $(READY) ## What a profile would do and cost, without a network: profile=NAME args="--gpu a100"
	@python -m tasks.commands.plan '$(or $(profile),default)' $(args)

.PHONY: flow
flow: $(READY) ## As repro, but as a Prefect flow; profile=NAME, args="--plan" says what would run and why
	@python -m flows.reproduce $(if $(profile),--profile '$(profile)') $(args)
	@$(if $(args),,python -m tasks.commands.summary)

.PHONY: compare
compare: $(READY) ## All methods on several seeds, hours: experiments/compare; profile=NAME, jobs=N side by side
	@python -m flows.compare $(if $(profile),--profile '$(profile)') $(if $(jobs),--jobs '$(jobs)')

.PHONY: serve
serve: $(READY) ## Prefect's server, worker and deployments on this machine, until Ctrl-C
	@python -m flows.serve $(args)

.PHONY: accept
accept: $(READY) ## Makes the present result the one that later runs are held against
	@python -m flows.results accept

.PHONY: try
try: $(READY) ## Both attempts of the base and of the trained model at your problem; args="--test 3"
	@python -m tasks.commands.try_it $(args)

.PHONY: browse
browse: $(READY) ## The same in a browser, token by token, on this machine only; args="--port 7861"
	@python -m tasks.commands.browse $(args)

.PHONY: export
export: $(READY) ## Trained model and model card together, in export/
	@python -m tasks.commands.export $(args)

.PHONY: merge
merge: $(READY) ## A trained adapter and its base as one model, in merged/
	@python -m tasks.commands.merge $(args)

.PHONY: test
test: lint ## Every check: lint and all tests, about twenty minutes; workers=N runs more files at once
	@python -m pytest -n $(or $(workers),2) --dist loadfile --no-loadscope-reorder --durations 20 --durations-min 20

.PHONY: vllm
vllm: ## The sampling server's own environment, .venv-vllm; build=cpu or build=gpu, else what the machine has
	@$(MAKE) --no-print-directory .venv-vllm/ready-$(or $(build),$$(nvidia-smi -L 2> /dev/null | grep -q GPU \
	    && echo gpu || echo cpu))

.PHONY: test-vllm
test-vllm: $(READY) vllm ## The engine vllm against the real server, about twenty minutes
	@python -m pytest -m vllm

.PHONY: fuzz
fuzz: $(READY) ## 2,000 inputs that nobody meant; writes benchmarks/fuzz.csv
	@python -m benchmarks.fuzz $(args)

.PHONY: lint
lint: $(READY) ## Style, formatting, types
	@ruff check .
	@ruff format --check .
	@mypy

.PHONY: setup
setup: $(READY) ## .venv alone

# Of Python 3.11, where PYTHON does not name it.
define FIND_PYTHON
python=$$(for name in $(PYTHON) python3.11 python3 python; do \
    "$$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null \
        && command -v "$$name" && break; done); \
if [ -z "$$python" ]; then \
    echo "error: no Python 3.11 found; install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
    exit 1; \
fi
endef

# An interrupted installation may leave a package half there, which pip takes for whole: start over.
$(READY):
	@$(FIND_PYTHON); \
	if [ -e .venv/unfinished ] || ! .venv/bin/python -m pip --version > /dev/null 2>&1; then \
	    echo "Setting up .venv; the first time takes some minutes"; \
	    "$$python" -m venv --clear .venv; \
	fi
	@touch .venv/unfinished
	@python -m pip install --disable-pip-version-check $$(grep '^torch==' requirements.txt) $(TORCH_INSTALL)
	@echo "Installing everything else in requirements.txt; about two minutes"
	@python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@rm -f .venv/ready-* .venv/unfinished
	@touch $@

SIZE_OF_cpu := 0.8 GB to download (more where pip takes torch for GPUs: TORCH_INSTALL), 3.5 GB on disk, 4 minutes
SIZE_OF_gpu := about 5 GB to download and 12 GB on disk
# The CPU build brings packages for GPUs that keep it from importing models.
.venv-vllm/ready-%: launch/vllm-%.txt
	@echo "Setting up .venv-vllm from $<: $(SIZE_OF_$*)"
	@$(FIND_PYTHON); "$$python" -m venv --clear .venv-vllm
	@pip="env -u PYTHONPATH .venv-vllm/bin/python -m pip --disable-pip-version-check --quiet"; \
	if [ $* = cpu ]; then $$pip install $$(grep '^torch==' $<) $(TORCH_INSTALL); fi && \
	$$pip install -r $< && \
	if [ $* = cpu ]; then $$pip uninstall --yes torchvision torchaudio torchcodec; fi
	@touch $@
