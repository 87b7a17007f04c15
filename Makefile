# SPDX-License-Identifier: GPL-2.0
#
# The targets for people; `make help` lists them. Kbuild builds the modules:
# `make -C KDIR M=$PWD modules` works without this file.

HEADERS_HINT := $(if $(KDIR),name a build tree prepared for modules,install the package \
	linux-headers-$(shell uname -r) or name another tree with KDIR=DIRECTORY)
KDIR ?= /lib/modules/$(shell uname -r)/build
PYTHON := /usr/bin/python3
VERSION := $(shell cat VERSION)
VM := tools/testing/vm
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# The release of the kernel to build for. Each kernel has its own build directory.
RELEASE = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' $(KDIR)/include/generated/utsrelease.h 2>/dev/null)
BUILD_DIR = $(CURDIR)/build/$(RELEASE)
# The number of concurrent tests, and more options of pytest.
JOBS ?= 2
PYTEST_ARGS ?=
# For check: the kernels to test with, and an expression that selects tests by name.
KERNEL ?=
T ?=
CHOICE = $(addprefix --kernel ,$(KERNEL)) $(if $(T),-k "$(T)")

.PHONY: docs overlay modules sources install install-modules install-userspace install-openssl check check-host check-all check-kernels check-hosts check-hosts-short check-long check-debian check-overseer check-programs check-debug check-kcsan check-overlay fuzz coverage deb lint demo bench clean help

modules: sources ## build the modules for KDIR (default: the running kernel), in build/RELEASE/
	$(MAKE) -C $(KDIR) M=$(BUILD_DIR) modules

# Links BUILD_DIR to the sources, because the kernel's build writes beside them.
sources:
	@test -e "$(KDIR)/include/generated/utsrelease.h" || { \
		echo "error: $(KDIR) holds no kernel headers: $(HEADERS_HINT)" >&2; exit 1; }
	@mkdir -p $(BUILD_DIR) && find $(BUILD_DIR) -xtype l -delete
	@find Kbuild VERSION compat drivers include tools/testing/modules -name '*.mod.c' -o \
		'(' -name '*.[ch]' -o -name Makefile -o -name Kbuild -o -name VERSION ')' -print | while read -r file; do \
		mkdir -p "$$(dirname "$(BUILD_DIR)/$$file")" && \
		ln -sf "$(CURDIR)/$$file" "$(BUILD_DIR)/$$file"; done

install: install-modules install-userspace ## install everything (below DESTDIR, if given)

install-modules: INSTALL_MOD_PATH ?= $(DESTDIR)
install-modules: modules ## install the modules (below INSTALL_MOD_PATH), and run depmod
	$(MAKE) -C $(KDIR) M=$(BUILD_DIR) INSTALL_MOD_DIR=updates modules_install
	depmod -b "$(INSTALL_MOD_PATH)/" $(RELEASE)
	install -D -m 644 tools/sysgenid/integration/modprobe.conf "$(INSTALL_MOD_PATH)/lib/modprobe.d/sysgenid.conf"

install-userspace: ## install the library, the command and the overseer; needs libsystemd-dev, libjson-c-dev, libgcrypt20-dev
	$(MAKE) -C tools/lib/sysgenid install OUTPUT=$(CURDIR)/build/lib
	$(MAKE) -C tools/sysgenid install

install-openssl: ## install the OpenSSL provider and sysgenid-openssl(8); needs libssl-dev and pkgconf
	$(MAKE) -C tools/openssl install OUTPUT=$(CURDIR)/build/openssl

.PHONY: install-criu
install-criu: ## the plugin for CRIU only; needs libcriu-dev (Debian 12: criu)
	$(MAKE) -C tools/criu install OUTPUT=$(CURDIR)/build/criu

deb: $(PYTHON) ## build Debian packages, in build/deb/
	@cd $(VM) && $(PYTHON) -m harness.debian

check: $(PYTHON) ## run the tests in guests with Debian's kernels, in part with newer ones; KERNEL=NAME and T=TESTS select some
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) -m "not debian and not long and not hosts and not series" \
		$(or $(CHOICE),--short-kernels) $(PYTEST_ARGS)

check-host: $(PYTHON) ## run the tests without a guest, in a minute: command, hooks, library, packaging
	@cd $(VM) && $(PYTHON) -m harness.packages no-guests
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --no-guests \
		-m "not debian and not long and not hosts and not whole_tree and not series" \
		$(if $(T),-k "$(T)") $(PYTEST_ARGS) tests/userspace tests/host \
		$(addprefix tests/packaging/test_,install.py overlay.py)

check-long: $(PYTHON) ## run the longer forms of check's tests, with many restores
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) -m "long and not hosts" $(PYTEST_ARGS)

check-kernels: $(PYTHON) ## test the guarantees with Debian 13's kernels, backports, rt, and the oldest 6.1
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --more-kernels -m "every_kernel and not long" $(PYTEST_ARGS)

check-hosts: $(PYTHON) ## test what each operation of libvirt, Xen, QEMU and CRIU does to the generation
	@cd $(VM) && $(PYTHON) -m harness.packages hosts
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --dist loadgroup -m hosts $(CHOICE) $(PYTEST_ARGS)

check-hosts-short: $(PYTHON) ## run the most important of these, with one kernel
	@cd $(VM) && $(PYTHON) -m harness.packages hosts
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.1-cloud -m "hosts and short" $(PYTEST_ARGS)

.PHONY: check-kvm
check-kvm: $(PYTHON) ## run tests of the guarantees with KVM, in an emulated machine that has it
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -m hosts $(if $(KERNEL),,--kernel 6.1-cloud) $(CHOICE) $(PYTEST_ARGS) \
		tests/host/test_kvm.py

check-all: $(PYTHON) ## run every test with every kernel; takes hours
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) -m "not debian and not hosts and not series" \
		--every-stock-kernel $(PYTEST_ARGS)
	@$(MAKE) check-hosts check-debian check-overseer check-programs check-debug check-kcsan check-overlay

check-debian: $(PYTHON) ## install, upgrade and purge the packages in Debian 12 and 13, and clone these systems
	@cd $(VM) && $(PYTHON) -c 'from harness import debian, host, packages; host.main( \
		lambda: packages.install(packages.NEEDED + debian.FOR_ROOT))'
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.1-cloud --kernel 6.12-cloud \
		--kernel 6.12-trixie-cloud $(PYTEST_ARGS) $(addprefix tests/packaging/, \
		test_debian.py test_packages.py test_module_driver.py) tests/host/test_host.py

check-overseer: $(PYTHON) ## test the overseer under systemd: restarts, failures and cold clones
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel $(or $(KERNEL),6.1-cloud) \
		$(if $(T),-k "$(T)") $(PYTEST_ARGS) $(addprefix tests/userspace/test_, \
		overseer.py cold_clones.py seal.py prepare.py hooks.py)

check-programs: $(PYTHON) ## count repeated draws of many programs in 20 pairs of clones, for Documentation/programs.rst
	@$(PYTHON) $(VM)/programs.py
	@cd $(VM) && $(PYTHON) -m pytest $(PYTEST_ARGS) tests/userspace/test_programs.py

check-debug: $(PYTHON) ## run the tests in a debug kernel, with injected failures; builds it first
	@cd $(VM) && $(PYTHON) -m harness.packages
	@rm -rf build/coverage
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.12-debug -m "not debian and not long and not hosts" \
		--ignore tests/driver/test_costs.py $(PYTEST_ARGS) \
		tests/driver $(addprefix tests/userspace/test_,command.py libsysgenid.py)
	@$(PYTHON) $(VM)/gcov.py

coverage: $(PYTHON) ## show which lines of the drivers no test has run, and why; needs make check-debug first
	@$(PYTHON) $(VM)/gcov.py

check-kcsan: $(PYTHON) ## run concurrent tests in a kernel that finds data races (KCSAN); builds it first
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.12-kcsan -m "not long" $(PYTEST_ARGS) \
		$(addprefix tests/driver/test_,selftests.py snapshot.py guarantees.py inject_bugs.py)

check-overlay: $(PYTHON) ## test the drivers in Debian's kernel sources, patch by patch, and built in
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.12-overlay --kernel 6.12-vmgenid \
		-m "not long" $(PYTEST_ARGS) tests/packaging/test_overlay.py \
		$(addprefix tests/driver/test_,built_in.py snapshot.py guarantees.py random.py draws.py)

fuzz: $(PYTHON) ## fuzz the device until a bug is found; SEED=N and CALLS=N repeat one run
	@$(PYTHON) $(VM)/fuzz.py

lint: $(PYTHON) ## check the sources with gcc, clang, sparse, checkpatch, Coccinelle and cppcheck
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) $(PYTEST_ARGS) tests/packaging/test_build.py tests/packaging/test_lint.py

demo: $(PYTHON) ## show one guest, its snapshot and two clones
	@$(PYTHON) $(VM)/demo.py

bench: $(PYTHON) ## measure costs and latencies, in instructions, beside the kernel's own driver; plot them
	@$(PYTHON) $(VM)/bench.py $(KERNEL) $(if $(JSON),--json)

.PHONY: bench-check
bench-check: $(PYTHON) ## fail if a figure of bench is over 3 % worse than the reference
	@$(PYTHON) $(VM)/bench.py $(KERNEL) --check $(if $(JSON),--json)

.PHONY: fleet
fleet: $(PYTHON) ## restore CLONES=32 clones of one snapshot, compare what they draw, plot when they settle
	@$(PYTHON) $(VM)/fleet.py $(addprefix --clones ,$(CLONES)) $(addprefix --kernel ,$(KERNEL)) \
		$(if $(JSON),--json)

docs: $(PYTHON) ## build the documentation, in build/docs/
	@kernel=$$(cd $(VM) && $(PYTHON) -c 'from harness import built_kernels, host, packages; \
		host.main(lambda: (packages.install(packages.DOCS), print(built_kernels.tree())))') && \
	KERNEL=$$kernel srctree=$(CURDIR) sphinx-build -q -W --keep-going -E -b html Documentation build/docs
	@echo build/docs/index.html

.PHONY: timeline
timeline: $(PYTHON) ## measure the time of each event in a guest after its restore
	@cd $(VM) && $(PYTHON) -m harness.packages
	@$(PYTHON) $(VM)/timeline.py

.PHONY: dist
dist: ## make the release's tarball from the last commit, in build/dist/
	@test -e .git || { echo "error: make dist needs a git checkout" >&2; exit 1; }
	@mkdir -p build/dist
	@git diff-index --quiet HEAD -- || echo "warning: uncommitted changes are left out; commit them first" >&2
	@git -c tar.tar.gz.command='gzip -9n' archive --format=tar.gz --prefix=sysgenid-$(VERSION)/ \
		-o build/dist/sysgenid-$(VERSION).tar.gz HEAD
	@echo build/dist/sysgenid-$(VERSION).tar.gz

overlay: ## put the drivers into the kernel source TREE; PATCHES=DIRECTORY: write patches instead
	@scripts/overlay "$(or $(TREE),$(error name a kernel tree: make overlay TREE=DIRECTORY))" \
		$(if $(PATCHES),--patches "$(PATCHES)")

clean: ## remove build/ (downloads stay in ~/.cache/sysgenid-vm)
	rm -rf build
	find tools -name __pycache__ -prune -exec rm -r {} +

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 21

$(PYTHON):
	@echo "  installing python3"
	@$(SUDO) apt-get -qq update
	@$(SUDO) apt-get -qq install -y --no-install-recommends python3 >/dev/null
