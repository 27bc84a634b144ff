# SPDX-License-Identifier: GPL-2.0-or-later
# `make help` says what there is. demo, check, lint and setup need root, and no more than git,
# make and apt; modules needs the headers of the kernel it builds for.

KDIR ?= /lib/modules/$(shell uname -r)/build
LAB := tools/lab/lab
DRIVER := drivers/vdpa/virtio_lm
# for demo and check: options of `tools/lab/lab up`, --qemu FILE for one
OPTIONS ?=
# for check: the tests to run, as `tools/lab/lab check --list` names them
TESTS ?=
# for lint: the files, named from here
FILES ?=
# for demo: device or svq
LOG ?=
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/virtio-lm

help:
	@echo "The lab (root; sets itself up in $(CACHE)):"
	@echo "  make demo             two L1 guests, an L2 on /dev/vhost-vdpa-0 of one, with traffic,"
	@echo "                        migrated live to the other on the device's dirty log, and back by"
	@echo "                        shadow virtqueues; LOG=device or LOG=svq for one of the two"
	@echo "  make soak N=200       L2 goes there and back N times; every page is checked each time"
	@echo "  make check            the tests of 20 minutes; TESTS=\"migration lab\" for some, of all that there are"
	@echo "  make check-all        all that take minutes, an hour and more"
	@echo "  make check-long       these and more in their long forms, hours; ends with a table of"
	@echo "                        what was counted"
	@echo "  make lint             checkpatch, shellcheck, pyflakes over the sources; FILES=... for some"
	@echo "  make bench            the benchmarks, on a machine that does nothing else: a table of ratios and a"
	@echo "                        report; TESTS=bench-migration for one of them"
	@echo "  make bench-quick      the same with fewer rounds and one size of L2"
	@echo "  make mutants          deliberate bugs, each of which a test must find"
	@echo "  make kselftest        the kselftests alone, in an L1"
	@echo "  make setup            tree, kernels, driver, QEMU: all that the above need"
	@echo "  make lab              how to use the lab by hand"
	@echo "  make distclean        clean, and remove the cache"
	@echo "  OPTIONS=...           for demo and check: your own kernel, QEMU, driver (make lab)"
	@echo "The driver, for the kernel of this machine or of KDIR=<headers or build folder>:"
	@echo "  make modules          build virtio_lm_vdpa.ko"
	@echo "  make modules_install  install it (INSTALL_MOD_PATH=... as kbuild has it)"
	@echo "  make clean            remove what modules has built"
	@echo "  make modules-log      build it with a dirty log, and the kernel's vdpa modules as a set"
	@echo "                        (RELEASE=<uname -r>, SOURCE=<kernel source>, OUT=<folder>)"
	@echo "  make modules-log_install, modules-log_remove    that set"
	@echo "  make deb              a Debian package of it for DKMS, in DEB=<folder> (needs debhelper, dh-dkms)"
	@echo "  make deb-log          modules-log, and a Debian package of that set, in DEB=<folder>"
	@echo "A kernel tree of yours:"
	@echo "  make overlay KTREE=<tree>   lay driver, selftests and documents over it, and build the"
	@echo "                        selftests there; no file of another's is overwritten"
	@echo "Documents:"
	@echo "  make docs             HTML in Documentation/_build (needs sphinx-build)"

setup:
	@$(LAB) setup

demo:
	@$(LAB) demo $(if $(LOG),--dirty-log $(LOG)) $(OPTIONS)

soak:
	@$(LAB) soak $(N) $(OPTIONS)

check:
	@$(LAB) check $(OPTIONS) $(TESTS)

check-all:
	@$(LAB) check --all $(OPTIONS) $(TESTS)

check-long:
	@$(LAB) check --long $(OPTIONS) $(TESTS)

lint:
	@$(LAB) lint $(FILES)

bench:
	@$(LAB) bench $(OPTIONS) $(TESTS)

bench-quick:
	@$(LAB) bench --quick $(OPTIONS) $(TESTS)

mutants:
	@$(LAB) check --verbose $(OPTIONS) mutants

kselftest:
	@$(LAB) check $(OPTIONS) kselftest kselftest-log

lab:
	@$(LAB) --help

modules modules_install:
	@[ -e "$(KDIR)/Makefile" ] || { echo "$@: no kernel headers at $(KDIR): install linux-headers-$$(uname -r)," \
		"or name others by KDIR=" >&2; exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(DRIVER) $@

RELEASE ?= $(shell uname -r)
OUT ?= build/modules-log-$(RELEASE)
modules-log:
	tools/linux/modules-log build -k $(RELEASE) $(if $(SOURCE),-s $(SOURCE)) $(OUT)

modules-log_install:
	tools/linux/modules-log install $(OUT)

modules-log_remove:
	tools/linux/modules-log remove -k $(RELEASE)

DEB ?= build/deb
deb:
	tools/linux/deb $(DEB)

deb-log: modules-log
	tools/linux/deb-log $(OUT) $(DEB)

overlay:
	@tools/linux/overlay "$(KTREE)"

clean:
	$(if $(wildcard $(KDIR)),$(MAKE) -C $(KDIR) M=$(CURDIR)/$(DRIVER) clean)
	rm -rf Documentation/_build build

distclean: clean
	@$(LAB) distclean

docs:
	@command -v sphinx-build >/dev/null || { echo "docs: there is no sphinx-build: install python3-sphinx" >&2; exit 1; }
	sphinx-build -q -W Documentation Documentation/_build

.PHONY: help setup demo soak check check-all check-long lint bench bench-quick mutants kselftest lab modules modules_install \
	modules-log modules-log_install modules-log_remove deb deb-log overlay clean distclean docs
