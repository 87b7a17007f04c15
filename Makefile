# SPDX-License-Identifier: GPL-2.0
#
# The verbs that a person types; `make help` lists them. The modules' own build
# is Kbuild's: `make -C KDIR M=$PWD modules` works without this file.

HEADERS_HINT := $(if $(KDIR),it has to be a build tree prepared for modules,install the package \
	linux-headers-$(shell uname -r) or name another tree with KDIR=DIRECTORY)
KDIR ?= /lib/modules/$(shell uname -r)/build
PYTHON := /usr/bin/python3
VM := tools/testing/vm
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# Of the kernel to build for; each gets a directory of its own to build in.
RELEASE = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' $(KDIR)/include/generated/utsrelease.h 2>/dev/null)
BUILD_DIR = $(CURDIR)/build/$(RELEASE)
# How many guests to run at once, and what else to tell pytest.
JOBS ?= 2
PYTEST_ARGS ?=
# For check: kernels to test with, and an expression that names of tests match.
KERNEL ?=
T ?=
CHOICE = $(addprefix --kernel ,$(KERNEL)) $(if $(T),-k "$(T)")

.PHONY: docs overlay modules install install-modules install-userspace install-openssl check check-host check-all check-kernels check-kernels-short check-long check-debian check-overseer check-programs check-debug check-kcsan fuzz coverage deb lint demo bench clean help

modules: ## build the modules for KDIR (by default the running kernel), in build/RELEASE/
	@test -e "$(KDIR)/include/generated/utsrelease.h" || { \
		echo "error: $(KDIR) holds no kernel headers: $(HEADERS_HINT)" >&2; exit 1; }
	@mkdir -p $(BUILD_DIR) && find $(BUILD_DIR) -xtype l -delete
	@find Kbuild compat drivers include tools/testing/modules -name '*.mod.c' -o \
		'(' -name '*.[ch]' -o -name Makefile -o -name Kbuild ')' -print | while read -r file; do \
		mkdir -p "$$(dirname "$(BUILD_DIR)/$$file")" && \
		ln -sf "$(CURDIR)/$$file" "$(BUILD_DIR)/$$file"; done
	$(MAKE) -C $(KDIR) M=$(BUILD_DIR) modules

install: install-modules install-userspace ## install all of it (below DESTDIR, if given)

install-modules: INSTALL_MOD_PATH ?= $(DESTDIR)
install-modules: modules ## the modules only (below INSTALL_MOD_PATH), and run depmod
	$(MAKE) -C $(KDIR) M=$(BUILD_DIR) INSTALL_MOD_DIR=updates modules_install
	depmod -b "$(INSTALL_MOD_PATH)/" $(RELEASE)
	install -D -m 644 tools/sysgenid/integration/modprobe.conf "$(INSTALL_MOD_PATH)/lib/modprobe.d/sysgenid.conf"

install-userspace: ## the library, the command and the overseer only; needs libsystemd-dev, libjson-c-dev, libgcrypt20-dev
	$(MAKE) -C tools/lib/sysgenid install OUTPUT=$(CURDIR)/build/lib
	$(MAKE) -C tools/sysgenid install

install-openssl: ## the OpenSSL provider and sysgenid-openssl(8) only; needs libssl-dev and pkgconf
	$(MAKE) -C tools/openssl install OUTPUT=$(CURDIR)/build/openssl

deb: $(PYTHON) ## build Debian packages, in build/deb/
	@cd $(VM) && $(PYTHON) -m harness.debian

check: $(PYTHON) ## run the tests in guests with Debian's kernels; KERNEL=NAME T=TESTS choose some
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) -m "not debian and not long" $(CHOICE) $(PYTEST_ARGS)

check-host: $(PYTHON) ## the tests without a guest: command, hooks, library, packaging; in a minute
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --no-guests -m "not debian and not long" \
		$(if $(T),-k "$(T)") $(PYTEST_ARGS) tests/userspace tests/host tests/packaging/test_install.py

check-long: $(PYTHON) ## the tests of check that restore guests again and again, as often as is promised
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) -m long $(PYTEST_ARGS)

check-kernels: $(PYTHON) ## the guarantees with Debian 13's kernels, backports, rt, and the oldest 6.1
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --more-kernels -m "every_kernel and not long" $(PYTEST_ARGS)

check-kernels-short: $(PYTHON) ## the most important of these, with one kernel of each kind
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.1-oldest --kernel 6.12-trixie-rt \
		--kernel backports-cloud -m "every_kernel and short" $(PYTEST_ARGS)

check-all: $(PYTHON) ## run every test there is, with every kernel there is; takes hours
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) -m "not debian" --every-stock-kernel $(PYTEST_ARGS)
	@$(MAKE) check-debian check-overseer check-programs check-debug check-kcsan

check-debian: $(PYTHON) ## install, upgrade and purge the packages in Debian 12 and 13, and clone them
	@cd $(VM) && $(PYTHON) -c 'from harness import debian, host, packages; host.main( \
		lambda: packages.install(packages.NEEDED + debian.FOR_ROOT))'
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.1-cloud --kernel 6.12-cloud \
		--kernel 6.12-trixie-cloud $(PYTEST_ARGS) $(addprefix tests/packaging/, \
		test_debian.py test_packages.py test_module_driver.py) tests/host/test_host.py

check-overseer: $(PYTHON) ## run the overseer under systemd, through restarts, failures and cold clones
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) $(PYTEST_ARGS) $(addprefix tests/userspace/test_, \
		overseer.py cold_clones.py seal.py prepare.py hooks.py)

check-programs: $(PYTHON) ## draw from many programs in 20 pairs of clones, and write the table of Documentation/programs.rst
	@$(PYTHON) $(VM)/programs.py
	@cd $(VM) && $(PYTHON) -m pytest $(PYTEST_ARGS) tests/userspace/test_programs.py

check-debug: $(PYTHON) ## run the tests in a kernel that finds bugs, and make it fail; builds it first
	@cd $(VM) && $(PYTHON) -m harness.packages
	@rm -rf build/coverage
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.12-debug -m "not debian and not long" \
		--ignore tests/driver/test_costs.py $(PYTEST_ARGS) \
		tests/driver $(addprefix tests/userspace/test_,command.py libsysgenid.py)
	@$(PYTHON) $(VM)/gcov.py

coverage: $(PYTHON) ## show which lines of the drivers no test has run, and why; after make check-debug
	@$(PYTHON) $(VM)/gcov.py

check-kcsan: $(PYTHON) ## run what is concurrent in a kernel that finds data races; builds it first
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) --kernel 6.12-kcsan -m "not long" $(PYTEST_ARGS) \
		$(addprefix tests/driver/test_,selftests.py snapshot.py guarantees.py inject_bugs.py)

fuzz: $(PYTHON) ## fuzz the device until something is found; SEED=N CALLS=N: once, so
	@$(PYTHON) $(VM)/fuzz.py

lint: $(PYTHON) ## look at the sources only: gcc, clang, sparse, checkpatch, coccinelle, cppcheck
	@cd $(VM) && $(PYTHON) -m harness.packages
	@cd $(VM) && $(PYTHON) -m pytest -n $(JOBS) $(PYTEST_ARGS) tests/packaging/test_build.py tests/packaging/test_lint.py

demo: $(PYTHON) ## show what it is for: one guest, its snapshot, two clones
	@$(PYTHON) $(VM)/demo.py

bench: $(PYTHON) ## count the instructions that calls, bumps and 100,000 watchers cost
	@cd $(VM) && $(PYTHON) -m harness.packages
	@$(PYTHON) $(VM)/bench.py
	@$(PYTHON) $(VM)/bench_openssl.py

docs: $(PYTHON) ## make the documentation's pages, in build/docs/
	@kernel=$$(cd $(VM) && $(PYTHON) -c 'from harness import built_kernels, packages; \
		packages.install((*packages.NEEDED, "python3-sphinx")); print(built_kernels.tree())') && \
	KERNEL=$$kernel srctree=$(CURDIR) sphinx-build -q -W -b html Documentation build/docs
	@echo build/docs/index.html

overlay: ## put the drivers into the kernel's source tree TREE
	@scripts/overlay "$(or $(TREE),$(error name a kernel tree: make overlay TREE=DIRECTORY))"

clean: ## remove what was built (downloads are kept, in ~/.cache/sysgenid-vm)
	rm -rf build
	find tools -name __pycache__ -prune -exec rm -r {} +

help: ## list these verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 21

$(PYTHON):
	@echo "  installing python3"
	@$(SUDO) apt-get -qq update
	@$(SUDO) apt-get -qq install -y --no-install-recommends python3 >/dev/null
