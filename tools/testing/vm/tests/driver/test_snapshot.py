# SPDX-License-Identifier: GPL-2.0
"""What programs in a guest see of its snapshot, and of the clones."""
import pytest
from harness.acpi_events import events

pytestmark = pytest.mark.every_kernel

WAYS = ("read", "poll", "map", "uevent")


def watch(guest, way):
    """Starts a program that waits for one new generation, in that way."""
    watcher = guest.start(f"wait_generation {way}")
    watcher.wait_for(r"^watching \d+$")
    return watcher


def notified(guest) -> int:
    """How often the hypervisor has sent its event."""
    return events(guest)


def test_new_guid_is_one_new_generation(guest):
    guest.load_modules()
    assert guest.generation() == 0
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1


@pytest.mark.parametrize("way", WAYS)
def test_clone_wakes_who_waits_by(way, guest):
    guest.load_modules()
    watcher = watch(guest, way)
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.program(watcher).wait_for("^woken 1$")
        assert clone.program(watcher).wait() == 0


@pytest.mark.short
def test_same_guid_is_no_new_generation(guest):
    guest.load_modules()
    watchers = [watch(guest, way) for way in WAYS]
    before = notified(guest)
    with guest.snapshot() as snap, snap.restore(snap.options.guid) as clone:
        assert notified(clone) == before + 1
        clone.unload_backend()
        assert clone.generation() == 0
        assert all(clone.program(watcher).status is None for watcher in watchers)


@pytest.mark.short
def test_two_clones_are_each_told_once(guest):
    guest.load_modules()
    watcher = watch(guest, "poll")
    with guest.snapshot() as snap, snap.restore_all(None, None) as clones:
        for clone in clones:
            clone.program(watcher).wait_for("^woken 1$")
            assert clone.generation() == 1


def test_clone_of_a_clone_is_the_next_generation(guest):
    guest.load_modules()
    with guest.snapshot() as first, first.restore() as clone:
        watcher = watch(clone, "read")
        with clone.snapshot() as second, second.restore() as grandchild:
            grandchild.program(watcher).wait_for("^woken 2$")
            assert grandchild.generation() == 2


def test_restored_clone_that_is_restored_as_itself_stays(guest):
    guest.load_modules()
    with guest.snapshot() as first, first.restore() as clone:
        assert clone.generation() == 1
        with clone.snapshot() as second, second.restore(second.options.guid) as again:
            again.unload_backend()
            assert again.generation() == 1


def test_restore_while_the_driver_is_away_counts_when_it_is_back(guest):
    guest.load_modules()
    guest.unload_backend()
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 0
        clone.load_backend()
        assert clone.generation() == 1


def test_restore_before_the_driver_first_came_does_not_count(guest):
    guest.run("insmod /modules/sysgenid.ko")
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.load_backend()
        assert clone.generation() == 0
