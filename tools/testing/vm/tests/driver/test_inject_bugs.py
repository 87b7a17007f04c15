# SPDX-License-Identifier: GPL-2.0
"""The debug kernels find bugs, and a finding fails the test.

A test module injects one bug of each kind. A kernel configuration or a harness that no
longer detects such a bug fails here.
"""
import pytest
from harness.guest import Guest


def fails_the_test(guest: Guest, bug: str, says: str) -> None:
    guest.run(f"insmod /modules/inject_bugs.ko kind={bug}", 120)
    with pytest.raises(AssertionError, match="findings in the kernel's log"):
        guest.close()
    assert says in guest.log()
    guest.expect(".")   # the fixture closes the guest again


@pytest.mark.kernels("6.12-debug")
@pytest.mark.parametrize("bug, says", (
    ("leak", "kmemleak: 1 new suspected"),
    ("use_after_free", "KASAN: slab-use-after-free in use_after_free"),
    ("out_of_bounds", "UBSAN: array-index-out-of-bounds"),
    ("sleep_in_atomic", "sleeping function called from invalid context"),
    ("inversion", "possible circular locking dependency"),
    ("no_rcu_lock", "suspicious RCU usage"),
    ("free_active", "ODEBUG: free active"),
))
def test_debug_kernel_finds_bug(guest, bug, says):
    fails_the_test(guest, bug, says)


@pytest.mark.kernels("6.12-kcsan")
def test_kcsan_finds_race(two_cpus):
    fails_the_test(two_cpus, "race", "KCSAN: data-race in count")
