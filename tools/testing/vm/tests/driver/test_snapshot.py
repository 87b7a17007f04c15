# SPDX-License-Identifier: GPL-2.0
"""The view of programs in a guest on its snapshot and clones."""
import pytest
from harness.acpi_events import events

pytestmark = [pytest.mark.every_kernel, pytest.mark.built_in]

WAYS = ("read", "poll", "map", "uevent")


def watch(guest, way):
    """Starts a program that waits for one new generation."""
    watcher = guest.start(f"wait_generation {way}")
    watcher.wait_for(r"^watching \d+$")
    return watcher


def test_new_guid_bumps_once(guest):
    guest.load_modules()
    assert guest.generation() == 0
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1


@pytest.mark.parametrize("way", WAYS)
def test_clone_wakes_waiter_by(way, guest):
    guest.load_modules()
    watcher = watch(guest, way)
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.program(watcher).wait_for("^woken 1$")
        assert clone.program(watcher).wait() == 0


@pytest.mark.short
def test_same_guid_does_not_bump(guest):
    guest.load_modules()
    watchers = [watch(guest, way) for way in WAYS]
    before = events(guest)
    with guest.snapshot() as snap, snap.restore(snap.options.guid) as clone:
        assert events(clone) == before + 1
        clone.unload_backend()
        assert clone.generation() == 0
        assert all(clone.program(watcher).status is None for watcher in watchers)


@pytest.mark.short
def test_two_clones_are_each_notified_once(guest):
    guest.load_modules()
    watcher = watch(guest, "poll")
    with guest.snapshot() as snap, snap.restore_all(None, None) as clones:
        for clone in clones:
            clone.program(watcher).wait_for("^woken 1$")
            assert clone.generation() == 1


def test_clone_of_clone_bumps_again(guest):
    guest.load_modules()
    with guest.snapshot() as first, first.restore() as clone:
        watcher = watch(clone, "read")
        with clone.snapshot() as second, second.restore() as grandchild:
            grandchild.program(watcher).wait_for("^woken 2$")
            assert grandchild.generation() == 2


def test_clone_restored_with_own_guid_does_not_bump(guest):
    guest.load_modules()
    with guest.snapshot() as first, first.restore() as clone:
        assert clone.generation() == 1
        with clone.snapshot() as second, second.restore(second.options.guid) as again:
            again.unload_backend()
            assert again.generation() == 1


def test_driver_counts_restore_it_missed(guest):
    guest.load_modules()
    guest.unload_backend()
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 0
        clone.load_backend()
        assert clone.generation() == 1


def test_restore_before_first_load_does_not_count(guest, kernel):
    if kernel.built_in:
        pytest.skip("the driver is there from the boot on")
    guest.run("insmod /modules/sysgenid.ko")
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.load_backend()
        assert clone.generation() == 0
