# SPDX-License-Identifier: GPL-2.0
"""The modules build without a warning, by the strictest of the usual checks."""
import re
import shutil

import build
import host
import pytest

pytestmark = pytest.mark.every_kernel

# gcc's and sparse's, not kbuild's about the machine that it runs on.
COMPLAINT = re.compile(r"^\S+\.[chS]:\d+.*(warning|error): |^(WARNING|ERROR): ", re.M)


@pytest.fixture
def elsewhere(kernel):
    """A folder where nothing is built yet, so that everything is looked at."""
    folder = build.folder(kernel).with_name(f"{kernel.name}-strict")
    with host.locked(folder.name, host.BUILD / "locks"):
        shutil.rmtree(folder, ignore_errors=True)
        yield folder
        shutil.rmtree(folder)


def test_no_warning_from_gcc_nor_sparse(kernel, elsewhere):
    printed = build.make_modules(kernel, "W=1", "C=2", into=elsewhere)
    printed += build.make_test_modules(kernel, "W=1", "C=2", into=elsewhere)
    assert "sysgenid.ko" in printed and "vm_generation_id.ko" in printed
    assert not COMPLAINT.search(printed), printed
