# SPDX-License-Identifier: MIT OR Apache-2.0
# The verbs. What they do is in the scripts and crates they call.

# Where make install puts things. DESTDIR goes before all of them.
PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/libqbm
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
CARGO ?= cargo
FUZZ_SECONDS ?= 60

.PHONY: all build test demo lint header man abi install install-strip uninstall qemu guest iotests crash sabotage miri bench fuzz clean help

all: build

help: ## List the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## Build the crates and libqbm
	$(CARGO) build --release --workspace --locked
	@qbm-ffi/install.sh build

qemu: ## Get, patch and build QEMU with QBM; prints where it is; QBM_QEMU_VERSION= (10.0) or 7.2
	@qemu-glue/build.sh

guest: ## Get what a guest of the tests boots from; prints where it is
	@tests/guest/fetch.sh

demo: ## Incremental backup of a guest's raw disk across shutdowns and a crash
	@tests/run.sh demo

test: ## Run every test, from unit to guest
	@tests/run.sh test

iotests: ## Run QEMU's block test-suite for qbm; TESTS= picks some
	@tests/iotests.sh $(TESTS)

sabotage: ## Break the engine on purpose, and see that the tests notice
	@tests/sabotage.sh

miri: ## The engine under miri (needs a nightly toolchain)
	@tests/miri.sh

crash: ## Kill QEMU under load 50 times and look for a missed block
	@tests/run.sh crash

bench: ## Time bitmaps beside plain loops and bitvec; FILTER= picks some
	$(CARGO) bench --locked -p qbm-scale --bench bits --bench files -- $(FILTER)

fuzz: ## Fuzz the core, FUZZ_SECONDS= (60) for each target
	@tests/fuzz.sh $(FUZZ_SECONDS)

lint: ## Formatting, clippy, rustdoc, shellcheck where installed, C style
	@tests/lint.sh

header: ## Regenerate include/qbm.h from qbm-ffi
	QBM_WRITE_HEADER=1 $(CARGO) test --locked --quiet -p qbm-ffi --test header

man: ## Regenerate the man pages from include/qbm.h, the documents and qbm-ffi/man
	QBM_WRITE_MAN=1 $(CARGO) test --locked --quiet -p qbm-ffi --test man

abi: ## Regenerate qbm-ffi/libqbm.abi from include/qbm.h (needs abigail-tools)
	@tests/c/abi.sh --write

install install-strip uninstall: export PREFIX := $(PREFIX)
install install-strip uninstall: export DESTDIR := $(DESTDIR)
install install-strip uninstall: export LIBDIR := $(LIBDIR)
install install-strip uninstall: export INCLUDEDIR := $(INCLUDEDIR)
install install-strip uninstall: export MANDIR := $(MANDIR)
install install-strip uninstall: export DOCDIR := $(DOCDIR)
install install-strip uninstall: export PKGCONFIGDIR := $(PKGCONFIGDIR)

install: ## Install libqbm: library, header, .pc file, man pages, examples; PREFIX=, DESTDIR=
	@qbm-ffi/install.sh install

install-strip: ## The same, with the shared library stripped
	@qbm-ffi/install.sh install-strip

uninstall: ## Remove what install put there
	@qbm-ffi/install.sh uninstall

clean: ## Remove what cargo built; the cache of QEMU stays
	$(CARGO) clean
