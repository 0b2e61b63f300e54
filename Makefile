# The front door. As root: make demo, make test.
SHELL := /bin/bash
RUNC_VERSION := v1.5.2
GOTESTSUM := gotest.tools/gotestsum@v1.13.0
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CONTAINERD_VERSION := v2.4.2
RUNTIMES ?= runc,$(CURDIR)/bin/runc,crun
PREFIX ?= /usr/local
PACKAGES ?= ./...
SMALLEST := mountinfo,pty,flock,encoding-json
BIN ?= bin
TAGS ?= seccomp
VERSION ?=
LDFLAGS ?=
BUILD = go build -trimpath -ldflags '-s -w $(if $(VERSION),-X $(MODULE_PATH)/internal/version.release=$(VERSION)) $(1)'
MODULE_PATH := github.com/seccompgen/seccompgen

.DEFAULT_GOAL := help
.PHONY: help reference setup build demo test bench lint generate install workloads kernels kernel static mutations mutants alarms repairs shrinks policies hosts hooks baselines fresh dist picture

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what is missing to build and run (Debian packages; runc from source where there is none)
	@scripts/setup build

build: ## build bin/seccompgen and bin/oci-hook
	@scripts/setup build
	$(call BUILD,$(LDFLAGS)) -tags $(TAGS) -o $(BIN)/seccompgen ./cmd/seccompgen
	CGO_ENABLED=0 $(call BUILD) -o $(BIN)/oci-hook ./cmd/oci-hook
	CGO_ENABLED=0 $(call BUILD) -o $(BIN)/seccompgen-runc ./cmd/oci-runtime
	CGO_ENABLED=0 $(call BUILD) -o $(BIN)/nri-plugin ./cmd/nri-plugin

demo: build ## record, build and verify a real module's tests (root)
	@scripts/demo

test: ## install what tests need and run all of them (root; without root it says what it leaves out)
	@scripts/setup test
	@$(MAKE) --no-print-directory bin/runc
	@[ $$(id -u) = 0 ] || echo "test: not root: tests of eBPF and of containers are left out"
	go run $(GOTESTSUM) --format pkgname-and-test-fails --jsonfile bin/test.json -- -tags seccomp -count 1 -timeout 30m $(PACKAGES)

nri: build bin/containerd2/containerd ## test the NRI plugin with containerd 2, which is built from source first (root, four minutes)
	CONTAINERD2=$(CURDIR)/bin/containerd2 go test -tags seccomp,nri -count 1 -run TestNRI ./test/engines

hooks: build ## record Go servers by the hook in each engine and keep them busy under their profiles, into docs/results/hooks.md (root, half an hour; RUNS=20 SECONDS=30)
	@scripts/setup test
	go test -tags seccomp,hooks -count 1 -timeout 3h -run TestHooks ./test/engines -engines.overlay -hooks.runs $(or $(RUNS),20) -hooks.seconds $(or $(SECONDS),30) -hooks.o $(CURDIR)/docs/results/hooks.md

bench: build ## measure the cost of recording, of build and of the static analysis, into docs/results/benchmarks.md (root)
	@scripts/setup bench
	go run -tags seccomp ./tracer/bench -o bin/bench.md
	go run -tags seccomp ./test/proof -overhead -o bin/overhead.md
	go run -tags seccomp ./test/proof -speed -o bin/speed.md
	cat bin/bench.md bin/overhead.md bin/speed.md >docs/results/benchmarks.md

workloads: build bin/runc ## prove record, build, verify on all workloads, into docs/results/workloads.md (root, about an hour)
	go run -tags seccomp ./test/proof -runtimes runc,$(CURDIR)/bin/runc -o docs/results/workloads.md

static: build ## compare the policy's table with what four Go versions build, and what workloads call with what their machine code can call, into docs/results/workloads-static.md (root)
	go test -tags seccomp -count 1 -run TestTableHoldsTheAnalysis ./profile -toolchains go1.24.0,go1.25.0,go1.26.0,go1.27.0
	go run -tags seccomp ./test/proof -static -runs 1 -o docs/results/workloads-static.md

mutations: build ## prove that verify names every call that is removed, into docs/results/mutations.md (root; MODULE=... for some; goes on after a stop)
	go run -tags seccomp ./test/proof -mutations -runs 20 -state bin/mutations -only $(or $(MODULE),$(SMALLEST)) -o docs/results/mutations.md

mutants: ## break rules of the code one by one, and see that a test of the package notices, into docs/results/mutants.md (root, a quarter of an hour)
	go run ./test/mutants -jobs $$(nproc) -o docs/results/mutants.md

alarms: build ## verify robust profiles 200 times, into docs/results/alarms.md (root; MODULE=...)
	go run -tags seccomp ./test/proof -alarms -runs 200 -only $(or $(MODULE),$(SMALLEST)) -o docs/results/alarms.md

repairs: build ## repair from a profile that allows nothing, into docs/results/repairs.md (root; MODULE=...; default: all workloads)
	go run -tags seccomp ./test/proof -repairs -runs 20 -only '$(MODULE)' -o docs/results/repairs.md

shrinks: build ## shrink, and confirm the certificates, into docs/results/shrinks.md (root; MODULE=...)
	go run -tags seccomp ./test/proof -shrinks -only $(or $(MODULE),mountinfo,pty,flock,time-386) -o docs/results/shrinks.md

hosts: build ## record on each host of a matrix, and verify on each other, into docs/results/hosts.md (root)
	go run -tags seccomp ./test/proof -hosts -o docs/results/hosts.md

policies: build ## compare what the policies make of one run in 50 others, into docs/results/policies.md (root, half an hour)
	go run -tags seccomp ./test/proof -policies -runs 50 -o docs/results/policies.md

baselines: build bin/runc ## measure what the runtimes need under a filter, into profile/baselines.json (root; RUNTIMES=...)
	go run -tags seccomp ./test/proof -baselines -runs 300 -runtimes $(RUNTIMES) -o profile/baselines.json

KERNELS := amd64-5.10 amd64-6.1 amd64-6.12 amd64-sid amd64-sid-preempt amd64-experimental amd64-experimental-preempt arm64-6.1 arm64-6.12

kernels: ## accept the recorder on Debian's kernels under emulation, into docs/results/compatibility.md (root, an hour; KERNELS=... of them)
	@scripts/setup kernels
	go run ./test/kernels -n 20 -o docs/results/compatibility.md accept $(KERNELS)

kernel: ## the same on one of them, a few times (root, two minutes)
	@scripts/setup kernels
	go run ./test/kernels -n 3 accept amd64-6.12

picture: build ## type the tutorial and make a picture of its report, into docs/report.svg (root)
	@scripts/setup test
	@scripts/picture

fresh: ## run the two commands of the README in a new Debian tree (root)
	scripts/fresh

lint: ## formatting, vet on all platforms, golangci-lint
	@wrong=$$(gofmt -l . | grep -v _bpfel.go); [ -z "$$wrong" ] || { echo "gofmt: $$wrong" >&2; false; }
	go vet -tags seccomp ./...
	GOOS=darwin go vet ./tracer ./profile
	GOARCH=arm64 CGO_ENABLED=0 go vet ./tracer/... ./profile ./cmd/oci-hook
	go run $(GOLANGCI) run

generate: ## compile the BPF objects anew, with Debian's clang
	@scripts/setup generate
	go generate ./...

reference: ## write docs/reference/cli.md, the man page and fish's completion from the commands
	go test -tags seccomp -count 1 -run TestReference ./cmd/seccompgen -update

install: build ## install below PREFIX
	install -D -m 755 $(BIN)/seccompgen $(DESTDIR)$(PREFIX)/bin/seccompgen
	install -D -m 755 $(BIN)/oci-hook $(DESTDIR)$(PREFIX)/libexec/seccompgen/oci-hook
	install -D -m 755 $(BIN)/nri-plugin $(DESTDIR)$(PREFIX)/libexec/seccompgen/nri-plugin
	install -D -m 755 $(BIN)/seccompgen-runc $(DESTDIR)$(PREFIX)/libexec/seccompgen/seccompgen-runc
	for file in $$(cd share && find . -type f); do install -D -m 644 share/$$file $(DESTDIR)$(PREFIX)/share/$$file; done
	for file in hooks.d/*/*.json; do \
		sed 's|/usr/local/|$(PREFIX)/|' $$file | install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/share/seccompgen/$$file; \
	done

dist: ## write into dist/ what a release of the commit has, the same bytes each time (VERSION=v1.2.3)
	@scripts/setup dist
	scripts/dist $(VERSION)

bin/runc: # the second runtime of the tests
	GOBIN=$(CURDIR)/bin go install -tags seccomp github.com/opencontainers/runc@$(RUNC_VERSION)

bin/containerd2/containerd:
	CGO_ENABLED=0 GOBIN=$(CURDIR)/bin/containerd2 go install -tags "no_btrfs no_devmapper no_zfs no_aufs" \
		github.com/containerd/containerd/v2/cmd/containerd@$(CONTAINERD_VERSION) \
		github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$(CONTAINERD_VERSION) \
		github.com/containerd/containerd/v2/cmd/ctr@$(CONTAINERD_VERSION)
