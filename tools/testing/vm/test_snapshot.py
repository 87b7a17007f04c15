# SPDX-License-Identifier: GPL-2.0
"""What programs in a guest see of a snapshot and its clones."""


def test_new_guid_is_one_new_generation(guest):
    guest.load_modules()
    assert guest.generation() == 0
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1


def test_same_guid_is_no_new_generation(guest):
    guest.load_modules()
    with guest.snapshot() as snap, snap.restore(snap.options.guid) as clone:
        assert clone.generation() == 0
