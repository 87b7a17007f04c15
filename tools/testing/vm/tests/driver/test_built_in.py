# SPDX-License-Identifier: GPL-2.0
"""The driver in a kernel without sysgenid, as the kernel's own driver is used.

With sysgenid, the tests that are marked built_in are run.
"""
import pytest
from harness.guest import Guest, Snapshot
from test_random import PREDICTABLE

pytestmark = [pytest.mark.built_in("6.12-vmgenid"), pytest.mark.kernels("6.12-vmgenid")]

DRAW = "for i in $(seq 64); do cat /proc/sys/kernel/random/uuid; done"
RESEEDED = "crng reseeded due to virtual machine fork"


def draws(snap: Snapshot, guid: str | None) -> set[str]:
    with snap.restore(guid) as clone:
        return set(clone.run(DRAW).split())


@pytest.fixture
def guest(boot) -> Guest:
    """Its random number generator is ready."""
    guest = boot(**PREDICTABLE)
    guest.run("head -c1 /dev/random > /dev/null")
    return guest


def test_clones_diverge(guest):
    assert guest.status("[ -e /dev/sysgenid ]") == 1
    with guest.snapshot() as snap:
        first, second = draws(snap, None), draws(snap, None)
        same, again = draws(snap, snap.options.guid), draws(snap, snap.options.guid)
        assert same & again, "inconclusive: clones with the same GUID differ too"
        assert not first & second and not (first | second) & (same | again)


def test_notifiers_are_called_for_a_new_guid_only(guest):
    """The same work item logs the line that the kernel's own driver has logged."""
    with guest.snapshot() as snap:
        with snap.restore() as clone:
            clone.run(f"until dmesg | grep -q '{RESEEDED}'; do :; done")
        with snap.restore(snap.options.guid) as clone:
            clone.unload_backend()
            assert RESEEDED not in clone.run("dmesg")
