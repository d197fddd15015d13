# SPDX-License-Identifier: Apache-2.0
#
# The entry points; `make help` lists them. Each does its own set-up (scripts/setup) on a Debian
# machine that has nothing but make. What is built goes to build/ and dist/, downloads to .cache/.
#
# The order of a build: headers -> BPF objects -> build/bpf/vnetd.bpf.o (one object)
#                       headers -> src/generated/layouts.ts (checked in; `make layouts`)
#                       addon/  -> build/addon/vnetd.node
#                       src/, cli/ -> dist/; of the command line one file more, dist/cli/vnetd.cjs
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
# a failed build leaves the last good one, which a daemon may be running from
.PRECIOUS: build/addon/vnetd.node

# Debian keeps bpftool in /usr/sbin; .cache/node is there where Debian's own Node is too old
export PATH := $(CURDIR)/.cache/node/bin:$(PATH):/usr/sbin:/sbin

PREFIX ?= /usr/local
DESTDIR ?=

# ---- targets for people ------------------------------------------------------------------

.PHONY: help all demo test lint bench bench-quick install uninstall dist image clean layouts schema format setup-build
help: ## this list
	@echo "make TARGET; every target installs what it needs first (as root, on Debian)"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14
	@echo "variables: PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) (install, uninstall)"

all: setup-build ## build everything: BPF programs, addon, TypeScript
	@$(MAKE) --no-print-directory build
	@echo "built: bin/vnetd and bin/vn run from here"

demo: ## three hosts in network namespaces, from nothing to a moved guest (root)
	@scripts/setup demo
	@$(MAKE) --no-print-directory -s build
	@scripts/demo

test: ## all tests, natively and on Debian's 6.1 and 6.12 kernels in QEMU (root)
	@scripts/setup test
	@node scripts/run-tests.mjs

lint: ## types, eslint, prettier, clang-format, stale generated files
	@scripts/setup test
	@node scripts/lint.mjs

bench: ## throughput, latency and CPU beside kernel VXLAN and others, into docs/performance.md (root)
	@scripts/setup bench
	@$(MAKE) --no-print-directory build
	@bench/run --write

bench-quick: ## whether small packets, TCP or round trips have become slower, in under two minutes (root)
	@scripts/setup demo
	@$(MAKE) --no-print-directory build
	@bench/run quick

install: all ## to $(DESTDIR)$(PREFIX): commands, lib/vnetd, systemd unit, completions, man pages
	@node scripts/copy-tree.mjs build/tree
	@install -m 644 scripts/vnetd.service.in build/tree/
	@scripts/install-tree --from build/tree --prefix "$(PREFIX)" --destdir "$(DESTDIR)"

uninstall: ## remove what install put there; not state, configuration or running vnets
	@scripts/install-tree --uninstall --prefix "$(PREFIX)" --destdir "$(DESTDIR)"

dist: all ## build/dist/vnetd-VERSION-linux-ARCHITECTURE.tar.gz: for machines without Debian's packages
	@scripts/make-dist build/dist

deb: all ## build/deb/vnetd_VERSION_ARCHITECTURE.deb, for Debian 12 and later
	@scripts/setup deb
	@scripts/make-deb build/deb

image: all ## build/image/: a container image for Kubernetes (docs/kubernetes.md), and the list of what is in it
	@node scripts/make-image.mjs

clean: ## remove what was built (not node_modules/ and .cache/, which are downloads)
	rm -rf build dist

layouts: setup-build ## generate src/generated/ from the headers and the reasons' page
	@node scripts/gen-layouts.mjs
	@node scripts/gen-reasons.mjs

schema: setup-build ## generate schema/ from src/config, and what deploy/ has of it and of monitoring/
	@$(MAKE) --no-print-directory -s ts
	@node scripts/gen-schema.mjs
	@node scripts/gen-deploy.mjs

format: setup-build ## let prettier and clang-format rewrite the sources
	@npx --no-install prettier --write --log-level warn .
	@! command -v clang-format >/dev/null || git ls-files '*.c' '*.h' '*.cc' | xargs -r clang-format -i

setup-build:
	@scripts/setup build

# ---- the build proper: no set-up, everything by its dependencies -------------------------

.PHONY: build bpf addon ts
build: bpf addon ts

# -- BPF. bpftool links the objects into one; llvm-strip -g leaves BTF in place, drops DWARF.
CLANG ?= clang
# the checkout's path does not go into what is built: two checkouts build the same bytes
BPF_CFLAGS = -O2 -g -target bpf -mcpu=v3 -std=gnu11 -Wall -Werror -Wno-address-of-packed-member \
	-ffile-prefix-map=$(CURDIR)=. \
	-Iinclude -Ibpf -I/usr/include/$(shell gcc -dumpmachine)
BPF_SOURCES := $(sort $(wildcard bpf/*.bpf.c))
BPF_NAMES := $(patsubst bpf/%.bpf.c,%,$(BPF_SOURCES))

# bpf-variant DIRECTORY, EXTRA FLAGS
define bpf-variant
$(1)/%.part.o: bpf/%.bpf.c Makefile
	@mkdir -p $(1)
	@echo "  BPF    $$<"
	@$$(CLANG) $$(BPF_CFLAGS) $(2) -MMD -MP -MF $$(@:.o=.d) -MT $$@ -c $$< -o $$@

$(1)/vnetd.bpf.o: $(patsubst %,$(1)/%.part.o,$(BPF_NAMES))
	@echo "  LINK   $$@"
	@bpftool gen object $$@.tmp $$^
	@llvm-strip -g $$@.tmp
	@mv $$@.tmp $$@

-include $(wildcard $(1)/*.d)
endef

$(eval $(call bpf-variant,build/bpf,))
# the same programs with another layout version: only the upgrade test loads these
$(eval $(call bpf-variant,build/bpf/next,-DVNETD_LAYOUT_OVERRIDE=2))

bpf: build/bpf/vnetd.bpf.o build/bpf/next/vnetd.bpf.o

# -- addon
ADDON_SOURCES := $(wildcard addon/binding.gyp addon/src/* include/vnetd/*.h scripts/build-addon.mjs)
addon: build/addon/vnetd.node
build/addon/vnetd.node: $(ADDON_SOURCES)
	@echo "  ADDON  $@"
	@node scripts/build-addon.mjs
	@test -f $@ && touch $@

# -- TypeScript. Output whose source is gone would still be imported: removed.
TS_SOURCES := $(shell find src cli -name '*.ts' 2>/dev/null)
ts: dist/.stamp
dist/.stamp: $(TS_SOURCES) tsconfig.json package.json scripts/bundle.mjs
	@echo "  TSC    dist/"
	@npx --no-install tsc -p tsconfig.json
	@find dist -name '*.js' | while read -r f; do \
		source=$${f#dist/}; [ -e "$${source%.js}.ts" ] || rm -f "$$f" "$$f.map"; done
	@node scripts/bundle.mjs
	@touch $@
