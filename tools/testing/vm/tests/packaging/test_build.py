# SPDX-License-Identifier: GPL-2.0
"""The modules build without a warning of gcc or sparse."""
import re
import shutil
from dataclasses import replace

import pytest
from harness import build, host, packages

pytestmark = pytest.mark.every_kernel

# Messages of gcc and sparse; Kbuild's warnings about the build machine do not match.
COMPLAINT = re.compile(r"^\S+\.[chS]:\d+.*(warning|error): |^(WARNING|ERROR): ", re.M)


@pytest.fixture
def elsewhere(kernel):
    """An empty build directory, so that every file is compiled and checked."""
    directory = build.directory(kernel).with_name(f"{kernel.name}-strict")
    with host.locked(directory.name, host.BUILD / "locks"):
        shutil.rmtree(directory, ignore_errors=True)
        yield directory
        shutil.rmtree(directory)


@pytest.mark.short
def test_modules_build_without_warning(kernel, elsewhere):
    packages.install(("sparse",))
    printed = build.make_modules(kernel, "W=1", "C=2", into=elsewhere)
    printed += build.make_test_modules(kernel, "W=1", "C=2", into=elsewhere)
    assert "sysgenid.ko" in printed and "vm_generation_id.ko" in printed
    assert not COMPLAINT.search(printed), printed


def test_dkms_accepts_kernel(kernel):
    pattern = re.search(r'^BUILD_EXCLUSIVE_KERNEL="(.*)"$', (host.ROOT / "dkms.conf").read_text(),
                        re.M)[1]
    assert re.match(pattern, kernel.release)


# Definitions that Linux 6.5 added with linux/cleanup.h in all headers, and Linux 6.4 in
# linux/lockdep.h. Later updates of Linux 6.1 have both.
ADDED = re.compile(r"^#include <linux/cleanup\.h>\n|^\s*scoped_guard\(.*\n|"
                   r"^DEFINE_(?:CLASS|FREE|GUARD|LOCK_GUARD_[01])\(.*\n(?:[ \t].*\n)*|"
                   r"^#define (?:DEFINE_WAIT_OVERRIDE_MAP|lock_map_acquire_try)\("
                   r"(?:.*\\\n)*.*\n", re.M)


@pytest.fixture
def early_kernel(kernel, tmp_path):
    """The kernel with the headers of an early 6.1, without these definitions."""
    sources = kernel.build_tree.parent
    copy = tmp_path / "src"
    shutil.copytree(sources, copy, symlinks=True)
    tree = copy / kernel.build_tree.name
    makefile = tree / "Makefile"
    makefile.write_text(makefile.read_text().replace(f"{sources}/", f"{copy}/"))
    (tmp_path / "lib").symlink_to(sources.parent / "lib")  # the target of a link in the copy
    for header in copy.glob("*-common/include/linux/**/*.h"):
        if header.name == "cleanup.h":
            header.unlink()
        elif ADDED.search(text := header.read_text()):
            header.write_text(ADDED.sub("", text))
    return replace(kernel, build_tree=tree)


@pytest.mark.kernels("6.1-cloud")
def test_modules_build_for_early_6_1_and_without_ftrace(early_kernel, tmp_path):
    assert not COMPLAINT.search(build.make_modules(early_kernel, "W=1", into=tmp_path / "build"))
    # Without ftrace, the modules build without looks.
    config = early_kernel.build_tree / "include/generated/autoconf.h"
    text, removed = re.subn(r"#define CONFIG_(FUNCTION_|DYNAMIC_F)\w+ 1\n", "", config.read_text())
    assert removed
    config.write_text(text)
    assert not COMPLAINT.search(build.make_modules(early_kernel, "W=1", into=tmp_path / "plain"))
