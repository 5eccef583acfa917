# Certwright. "make help" lists what there is to do.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Settings: make test RACE=1, make demo DEMO_ARGS=--exit, make dist GOOS=linux GOARCH=arm64 ...
DEMO_ARGS  ?=
RUN_ARGS   ?=
RACE       ?=
TEST_FLAGS ?=
PKG        ?= $(MODULES)
BENCH      ?= .
BENCH_ARGS ?=
BENCH_TIME ?= 1s
COMPOSE    ?= docker compose

# Where the developers' tools are built to; tools/ pins their versions.
TOOLS_BIN := $(CURDIR)/.tools/bin
# "<folder>/..." of every module in go.work.
MODULES = $(shell go list -m -f '{{.Dir}}/...')
# The programs of the product. The lab's are never among them.
COMMANDS = $(wildcard services/*/cmd/*)
DIST = dist/$(shell go env GOOS)_$(shell go env GOARCH)

.PHONY: help
help: ## List what there is to do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

##### Use it

.PHONY: demo
demo: ## Show the main job on embedded parts, then keep the platform up (DEMO_ARGS=--exit: stop at the end)
	@go run ./deployments/lab/cmd/demo $(DEMO_ARGS)

.PHONY: run
run: ## Run the platform in one process with everything embedded (RUN_ARGS=...)
	@go run ./services/certwright/cmd/certwright serve $(RUN_ARGS)

.PHONY: up
up: dist ## Start NATS, MongoDB and every service as containers (compose.yaml)
	@$(COMPOSE) up --build --detach --wait

##### Change it

.PHONY: test
test: ## Run the tests (RACE=1: with the race detector, in random order; PKG=./shared/bus/...; TEST_FLAGS=-v)
	@CGO_ENABLED=$(if $(RACE),1,0) go test -timeout 25m $(if $(RACE),-race -shuffle=on) $(TEST_FLAGS) $(PKG)

.PHONY: cover
cover: ## Run the tests and say how much of the code they reach (coverage.out)
	@CGO_ENABLED=0 go test -coverprofile=coverage.out $(TEST_FLAGS) $(PKG)
	@go tool cover -func=coverage.out | tail -1

.PHONY: bench
bench: ## Measure the whole platform against the bare ACME library (BENCH_ARGS="-c 32 throughput"; docs/benchmarks.md)
	@mkdir -p $(TOOLS_BIN)
	@CGO_ENABLED=0 go build -o $(TOOLS_BIN)/bench ./deployments/lab/cmd/bench
	@$(TOOLS_BIN)/bench $(BENCH_ARGS)

.PHONY: bench-cold
bench-cold: ## Measure from a fresh clone with an empty build cache to the demo's first certificate (minutes)
	@deployments/lab/bench/cold.sh

.PHONY: bench-go
bench-go: ## Run the Go benchmarks of the packages (BENCH=regexp, BENCH_TIME=1s)
	@CGO_ENABLED=0 go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCH_TIME) -benchmem $(PKG)

.PHONY: build
build: ## Compile everything
	@CGO_ENABLED=0 go build $(PKG)

.PHONY: dist
dist: ## Build static binaries of every program into dist/<os>_<arch> (GOOS=, GOARCH=)
	@mkdir -p $(DIST)/state # an empty one, for images
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(DIST)/ $(addprefix ./,$(COMMANDS))
	@ls -l $(DIST)

.PHONY: fmt
fmt: ## Format the Go code and the contracts
	@gofmt -l -w $$(go list -m -f '{{.Dir}}')
	@if [ -x $(TOOLS_BIN)/buf ]; then $(TOOLS_BIN)/buf format -w api; fi

.PHONY: tidy
tidy: ## Make go.mod and go.sum of every module say what its code needs
	@for dir in api shared $(filter-out services/certwright,$(patsubst %/go.mod,%,$(wildcard services/*/go.mod))) services/certwright deployments/lab; do echo "$$dir"; GOWORK=off go -C "$$dir" mod tidy; done

.PHONY: lint
lint: tools-lint ## Run golangci-lint over every module (PKG=...)
	@CGO_ENABLED=0 $(TOOLS_BIN)/golangci-lint run $(PKG)

.PHONY: gen
gen: tools ## Write what follows from api/**/*.proto: Go, OpenAPI, AsyncAPI, docs/events.md
	@tools/gen.sh

.PHONY: baseline
baseline: tools ## Accept the contracts of now as those that "make check" guards against breaking
	@$(TOOLS_BIN)/buf build api --exclude-source-info --output api/baseline.binpb

##### Prove it

.PHONY: check
check: ## Everything that CI runs: format, vet, lint, contracts, generated code, known vulnerabilities, tests with -race
	@.ci/check

.PHONY: check-full
check-full: ## check, then the long proofs in .ci/full.d; writes docs/verification.md
	@.ci/full

##### Tools (built once, from pinned versions)

.PHONY: tools
tools: ## Build buf and the generators
	@mkdir -p $(TOOLS_BIN)
	@GOWORK=off CGO_ENABLED=0 go -C tools build -o $(TOOLS_BIN)/ tool
	@GOWORK=off CGO_ENABLED=0 go -C tools/protoc-gen-go build -o $(TOOLS_BIN)/ tool

.PHONY: tools-lint
tools-lint: ## Build golangci-lint
	@mkdir -p $(TOOLS_BIN)
	@GOWORK=off CGO_ENABLED=0 go -C tools/lint build -o $(TOOLS_BIN)/ tool

.PHONY: tools-vuln
tools-vuln: ## Build govulncheck
	@mkdir -p $(TOOLS_BIN)
	@GOWORK=off CGO_ENABLED=0 go -C tools/vuln build -o $(TOOLS_BIN)/ tool

.PHONY: clean
clean: ## Remove what was built here
	@rm -rf dist .tools coverage.out
