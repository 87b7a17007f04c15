# SPDX-License-Identifier: GPL-2.0
"""What only a kernel made for finding mistakes can do: fail when told to.

Whatever the kernel reports meanwhile, leaks among it, fails these as it
fails any test with a guest.
"""
import re

import pytest

pytestmark = pytest.mark.kernels("6.12-debug")
SYSFS = "/sys/class/misc/sysgenid"
# Every kind of allocation may fail, silently, and where told to by fail-nth.
READY_TO_FAIL = """
cd /sys/kernel/debug
for kind in failslab fail_page_alloc; do
    echo 0 > $kind/verbose
    echo N > $kind/ignore-gfp-wait
done
echo N > fail_page_alloc/ignore-gfp-highmem
echo 0 > fail_page_alloc/min-order"""


@pytest.fixture
def failing(boot):
    """A guest where allocations can be made to fail."""
    guest = boot()
    guest.run(READY_TO_FAIL)
    return guest


def fail_each(guest, call: str, at_least: int) -> None:
    """Each allocation of a call fails once; there are that many or more."""
    said = guest.run(f"fail_allocations {call}", 300)
    assert int(re.search(r"(\d+) allocations", said)[1]) >= at_least


@pytest.mark.parametrize("call, at_least", (
    ("open", 2), ("map", 2), ("read", 0), ("poll", 0), ("epoll", 2), ("ioctl", 0),
    (f"show {SYSFS}/generation", 2), (f"show {SYSFS}/outdated", 2),
    ("show /proc/self/fdinfo/4", 2)))
def test_failing_allocation_is_enomem_and_the_next_try_works(failing, call, at_least):
    failing.load_modules()
    fail_each(failing, call, at_least)
