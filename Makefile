.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
# Without compiled modules, which some container images switch off, each of the many processes compiles all of them anew.
unexport PYTHONDONTWRITEBYTECODE
# Tests wait more than they compute, so six processes use two cores. They share a broker and a database server.
WORKERS ?= 6
CODE := libs/common/src services/*/src simulators/src deploy/local/src tests benchmarks

.PHONY: help install develop demo down up check test faults scale bench contracts release

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

install: ## Create .venv with all packages and their pinned dependencies
	@./deploy/local/bootstrap

develop: install ## Add the dependencies of tests and checks
	@./deploy/local/bootstrap dev

demo: install ## Start everything and watch real jobs run (keeps running)
	@$(BIN)/python -m wch_local.demo

down: install ## Stop what the demo started
	@$(BIN)/python -m wch_local.demo down

up: ## Run broker, database, simulators and every service in Docker (stop with ctrl-c)
	@docker compose -f deploy/compose.yaml $(addprefix -f ,$(wildcard deploy/compose/*.yaml)) --profile simulators up --build

check: develop ## Check style, types, boundaries, words, dependencies, manifests, migrations, contract
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@MYPYPATH=$$(echo services/*/src | tr ' ' :) $(BIN)/mypy $(CODE)
	@$(BIN)/python deploy/kubernetes/check.py
	@for package in libs/common services/* simulators deploy/local; do \
		(cd $$package && $(CURDIR)/$(BIN)/deptry src > $(CURDIR)/.venv/deptry.log 2>&1) || { cat .venv/deptry.log; exit 1; }; \
	done
	@$(BIN)/python -m pytest -q tests/architecture
	@./deploy/local/contract-check/run
	@echo "all checks passed: style, types, boundaries, words, dependencies, manifests, migrations, contract"

test: develop ## Run every test, against a real broker and a real database
	@$(BIN)/python -m wch_local.provide
	@$(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

faults: develop ## Run the tests of faults with their full sizes
	@$(BIN)/python -m wch_local.provide
	@WCH_TEST_SCALE=full $(BIN)/python -m pytest -q tests/faults --timeout 1800 $(ARGS)

scale: develop ## Run the tests of scale with their full sizes
	@$(BIN)/python -m wch_local.provide
	@WCH_TEST_SCALE=full $(BIN)/python -m pytest -q -m scale --timeout 1800 $(ARGS)

bench: develop ## Compare with other libraries (half an hour); writes to benchmarks/
	@$(BIN)/python benchmarks/compare.py $(ARGS)
	@test -x .bench/report/bin/python || { $(BIN)/python -m venv .bench/report && .bench/report/bin/pip install -q matplotlib==3.10.7; }
	@.bench/report/bin/python benchmarks/report.py

contracts: install ## Generate contracts/, docs/settings.md and the table of reasons from the models
	@$(BIN)/wch events schemas --write contracts
	@$(BIN)/python -m wch_local.settings_page > docs/settings.md
	@$(BIN)/python -m wch_local.reasons_table

release: develop ## Prepare a release for review, like VERSION=0.2.0 (ARGS=--dry-run changes nothing)
	@test -n "$(VERSION)" || { echo "give the version, like: make release VERSION=0.2.0" >&2; exit 2; }
	@$(BIN)/python -m wch_local.release $(VERSION) $(ARGS)
