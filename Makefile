# Everything here works in a fresh clone on a Debian with git, make and Go, as an
# ordinary user or as root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ROLES   := server relay portal
MODULES := bpf lab portal proto relay server

# The version comes from git where there is git, through the linker and not through
# Go's own stamping, which refuses a clone that belongs to another user.
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# The time of the commit is below all that a device's clock may say truly.
BUILT   := $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS := -X github.com/netport/netport/proto/command.Version=$(VERSION) \
	-X github.com/netport/netport/proto/clock.built=$(BUILT)
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# What is shipped, and what measures it, has these without inlining, which makes the portal 0.4 MB smaller: what they
# read is small and comes seldom. TLS, of which every record is, was measured and is no slower. Of the portal's
# own packages those keep it that work for each packet, record or connection.
OURS   := github.com/netport/netport
SELDOM := crypto/tls encoding/asn1 encoding/json github.com/google/... github.com/pelletier/... $(OURS)/portal/... \
	$(addprefix $(OURS)/proto/,command/... conffile enrol eyeballs invite join keeper local logs manual metrics proxy)
OFTEN  := $(addprefix $(OURS)/portal/internal/,carrier/... entry exit path path/packet stream traffic tunnel)
build build-pkcs11 bench size deb rpm package-check package-test: export GOFLAGS := $(GOFLAGS) \
	$(SELDOM:%=-gcflags=%=-l) $(OFTEN:%=-gcflags=%=)

# Of make size: a table, or the one line of make check, which fails if the portal is larger than it may be.
SIZEFLAGS := -table

# Tests mostly wait, so more packages run at once than there are processors. How many
# of the lab's stories do, package stage sees to.
LABTEST := NETPORT_BIN=$(CURDIR)/bin scripts/gotest -timeout 15m -count 1 -p 4 -parallel 4

# Servers that the tests use are in the sbin directories, which a user's PATH lacks.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help build build-pkcs11 demo test lab-test lab-soak soak bench size check generate fuzz deb rpm deb-source package-check package-test

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ## build netport-server, netport-relay and netport-portal into bin/
	@for role in $(ROLES); do \
		CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' \
			-o bin/netport-$$role ./$$role; \
	done

build-pkcs11: ## build a netport-portal that can have its key on a PKCS #11 token, with a C compiler
	@CGO_ENABLED=1 go build -trimpath -tags pkcs11 -ldflags '$(LDFLAGS)' -o bin/pkcs11/netport-portal ./portal

demo: build ## forward a web server and a name server on this machine (KEEP=1: stay)
	@go build -trimpath -o bin/netport-demo ./lab/demo
	@bin/netport-demo -bin bin $(if $(filter 1,$(KEEP)),-keep)

test: ## run every test; the lab's only as root
	@scripts/setup
	@scripts/check
	@$(MAKE) --no-print-directory demo package-check
	@scripts/gotest -timeout 5m -p 4 $(addprefix ./,$(addsuffix /...,$(filter-out lab,$(MODULES))))
	@scripts/gotest -timeout 5m -tags pkcs11 ./portal/internal/keystore/...
	@$(LABTEST) ./lab/...

lab-test: build ## run the network namespace topologies alone, as root or with sudo
	@scripts/as-root true # Or say at once what is missing.
	@$(LABTEST) -exec $(CURDIR)/scripts/as-root ./lab/...

# On two processors: kernel 6 minutes, joining 3, e2e 3, faults more than 25, matrix 50, survive hours. What a pair of
# the matrix does is mostly waiting.
lab-soak: build ## run the tests of faults and attacks with their whole numbers (hours), as root or with sudo
	@failed=; for package in kernel joining e2e faults survive matrix; do \
		SECONDS=0; \
		go test -c -o bin/lab-soak.test ./lab/$$package; \
		(cd lab/$$package && NETPORT_BIN=$(CURDIR)/bin $(CURDIR)/scripts/as-root \
			$(CURDIR)/bin/lab-soak.test -test.v -test.timeout 8h -test.parallel $$([ $$package = matrix ] && echo 6 || nproc) -full) || failed+=" $$package"; \
		echo "lab-soak: $$package took $$(((SECONDS + 30) / 60)) min"; \
	done; \
	go test -count 1 -v -run 'SurvivesAKill|AlikeInTime' ./server/internal/daemon -full || failed+=" server"; \
	go test -count 1 -v -timeout 1h -run 'ComeAndGoLeaveNothing' ./portal/internal/daemon -churn 10000 || failed+=" portal"; \
	[ -z "$$failed" ] || { echo "lab-soak: failed:$$failed"; exit 1; }

soak: build ## live through a fault each minute for HOURS=24 (0.5: half an hour), as root or with sudo
	@go test -c -o bin/soak.test ./lab/survive
	@cd lab/survive && NETPORT_BIN=$(CURDIR)/bin $(CURDIR)/scripts/as-root \
		$(CURDIR)/bin/soak.test -test.v -test.timeout 0 -test.run '^TestSoak$$' -soak $(or $(HOURS),24)h

bench: build ## measure Netport and its rivals side by side (BENCHFLAGS=-quick: sooner), as root
	@go build -trimpath -o bin/netport-bench ./lab/bench
	@cd scripts/tools && GOWORK=off go build -trimpath -o ../../bin/tools/wireguard golang.zx2c4.com/wireguard || \
		echo 'bench: wireguard-go cannot be built here and is left out'
	@NETPORT_BIN=$(CURDIR)/bin scripts/as-root bin/netport-bench $(BENCHFLAGS)

size: ## say how large the stripped portal is and what each dependency has of it
	@go run ./lab/size/show $(SIZEFLAGS)

deb: ## make Debian packages of the three roles in bin/packages, for amd64, arm64 and armhf
	@VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' scripts/deb deb

rpm: ## make RPM packages of the same
	@VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' scripts/deb rpm

deb-source: ## make Debian source packages that build without a network (modules vendored)
	@VERSION='$(VERSION)' scripts/deb-source

package-check: ## check the Debian packages: same bytes twice, lintian, manual pages, units
	@VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' scripts/deb-check

package-test: ## install, run, upgrade and remove all packages in a Debian booted for it, build them from source, as root
	@VERSION='$(VERSION)' scripts/deb-source-test
	@scripts/deb-arm-test
	@LDFLAGS='$(LDFLAGS)' scripts/deb-test

check: ## look the source over: format, vet, staticcheck, modules, other systems, size, imports, scripts
	@scripts/check

generate: ## make the generated files again
	@for module in $(MODULES); do (cd $$module && GOWORK=off go generate ./...); done

fuzz: ## run every fuzz test, each for FUZZTIME (30s)
	@scripts/fuzz
