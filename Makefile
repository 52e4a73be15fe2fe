# `make demo` brings up a whole cloud on this machine; `make test` proves it. Both do all the set-up.
PYTHON := .venv/bin/python
# What needs root is run through sudo, without a password, by whoever is not root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -n --preserve-env=PATH) env PYTHONDONTWRITEBYTECODE=1
# Until it has learnt to, it hears no Ctrl-C.
DEMO := $(AS_ROOT) env --block-signal=INT $(PYTHON) -m deploy.demo
.DEFAULT_GOAL := help
.PHONY: help setup demo status logs down leftovers clean lint test test-quick test-libvirt test-gateway test-slow bench

help: ## what there is to do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## Debian packages (root or sudo -n) and .venv; does only what is missing
	@deploy/setup

demo: ## the cloud: up, or what is missing of it
	@deploy/check demo
	@deploy/setup
	@$(DEMO) up

status logs down leftovers: ## of the demo
	@if [ -x $(PYTHON) ]; then $(DEMO) $@; elif [ -e .demo ]; then echo 'demo: no .venv: run `make setup` first' >&2; exit 1; fi

clean: down ## down, and away with all that setup, demo and tests have made in the checkout
	@$(AS_ROOT) rm -rf .demo .cache .venv .build

lint: setup ## format, lint, types, contracts
	@.venv/bin/python -m pytest -q tests/checks -m "not slow"

test: setup ## everything
	@tests/run all

test-quick: setup ## no root, under a minute
	@tests/run quick

test-libvirt: setup ## real libvirt and QEMU
	@tests/run libvirt

test-gateway: setup ## real Envoy
	@tests/run gateway

test-slow: setup ## what takes minutes
	@tests/run slow

bench: setup ## each published figure beside its floor; some minutes on a quiet machine
	@$(AS_ROOT) $(PYTHON) -m bench
