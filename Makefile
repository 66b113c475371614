# SPDX-License-Identifier: MIT OR Apache-2.0
# The verbs. What they do is in the scripts and crates they call.

PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
CARGO ?= cargo
FUZZ_SECONDS ?= 60

.PHONY: all build test demo lint header install uninstall qemu guest crash sabotage miri bench fuzz clean help

all: build

help: ## List the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## Build the crates and libqbm
	$(CARGO) build --release --workspace --locked

qemu: ## Get, patch and build QEMU with QBM; prints where it is
	@qemu-glue/build.sh

guest: ## Get what a guest of the tests boots from; prints where it is
	@tests/guest/fetch.sh

demo: ## Incremental backup of a guest's raw disk across shutdowns and a crash
	@tests/run.sh demo

test: ## Run every test, from unit to guest
	@tests/run.sh test

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

install: ## Install libqbm, its header and its .pc file below PREFIX
	@qbm-ffi/install.sh "$(DESTDIR)" "$(PREFIX)" "$(LIBDIR)"

uninstall: ## Remove what install put there
	rm -f $(DESTDIR)$(LIBDIR)/libqbm.so $(DESTDIR)$(LIBDIR)/libqbm.so.0 $(DESTDIR)$(LIBDIR)/libqbm.so.0.2.0 \
		$(DESTDIR)$(LIBDIR)/libqbm.a $(DESTDIR)$(LIBDIR)/pkgconfig/qbm.pc $(DESTDIR)$(PREFIX)/include/qbm.h

clean: ## Remove what cargo built; the cache of QEMU stays
	$(CARGO) clean
