# SPDX-License-Identifier: GPL-2.0
"""Clones whose machine keeps its UUID: only the generation ID distinguishes them."""
import pytest
from harness.guest import Guest, new_guid

pytestmark = pytest.mark.hosts

HARDWARE = "c7a5fdbd-cdaf-9455-926a-d65c16db1809"
SETTINGS = {"settings": ("-uuid", HARDWARE)}


def product_uuid(guest: Guest) -> str:
    return guest.run("cat /sys/class/dmi/id/product_uuid").strip()


def generation_id(guest: Guest) -> str:
    """The GUID's bytes, as the guest's memory holds them."""
    return guest.run("map_hardware").split()[-1]


def draw(guest: Guest) -> str:
    return guest.run("cat /proc/sys/kernel/random/uuid")


@pytest.mark.short
def test_restored_clones_have_one_product_uuid_and_their_own_generation_ids(boot):
    guest = boot(**SETTINGS)
    guest.load_modules()
    assert product_uuid(guest) == HARDWARE
    ids = {generation_id(guest)}
    with guest.snapshot() as snap, snap.restore_all(None, None) as clones:
        assert {product_uuid(clone) for clone in clones} == {HARDWARE}
        assert len(ids.union(map(generation_id, clones))) == 3
        assert [clone.generation() for clone in clones] == [1, 1]
        assert len(set(map(draw, clones))) == 2


def test_copies_that_boot_have_one_product_uuid_and_their_own_generation_ids(boot):
    """Their counters start at 0: sysgenidd compares the generation ID with its record."""
    copies = [boot(fresh=True, guid=new_guid(), **SETTINGS) for _ in range(2)]
    for copy in copies:
        copy.load_modules()
    assert {product_uuid(copy) for copy in copies} == {HARDWARE}
    assert len(set(map(generation_id, copies))) == 2
    assert [copy.generation() for copy in copies] == [0, 0]
