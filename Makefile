.PHONY: help install lint test test-all quickstart

help:        ## list the targets
	@grep -E '^[a-z-]+: *##' Makefile | sed 's/: *##/\t/'

install:     ## install what users and developers need into the active environment
	python -m pip install -r requirements-dev.txt
	python -m pip install --no-deps -r requirements-oracle.txt -r requirements-gmflow.txt

lint:        ## style, types, shell scripts
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy
	shellcheck -x scripts/*.sh scripts/slurm/* .ci/run

test:        ## all but the slow tests
	bash scripts/test.sh

test-all:    ## every test
	bash scripts/test.sh --all

quickstart:  ## train, apply and score on built-in data
	bash scripts/quickstart.sh
