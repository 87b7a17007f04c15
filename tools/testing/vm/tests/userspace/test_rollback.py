# SPDX-License-Identifier: GPL-2.0
"""Systems whose disk was rolled back while they were off."""
import shutil

import pytest
from harness.guest import new_guid
from test_cold_clones import disk, image, kernel, power_off, ran, start  # noqa: F401, fixtures

pytestmark = [pytest.mark.kernels("6.1-cloud"), pytest.mark.debian]


def test_a_disk_that_was_rolled_back_runs_the_hooks_once(start, disk, logs):  # noqa: F811
    guid = new_guid()
    power_off(start(disk, guid))
    backup = shutil.copy(disk, logs / "backup")
    # It goes on, through a reboot, before the host rolls it back.
    guest = start(disk, guid)
    assert ran(guest) == "" and guest.generation() == 0
    power_off(guest)
    shutil.copy(backup, disk)
    # A host gives a new GUID with a rollback, as it does with each restore.
    rolled_back = new_guid()
    guest = start(disk, rolled_back)
    assert ran(guest) == "1\n" and guest.generation() == 1
    power_off(guest)
    guest = start(disk, rolled_back)
    assert ran(guest) == "1\n" and guest.generation() == 0, "it has settled there"
    power_off(guest)
    # Rolled back to the same place once more, that is another clone.
    shutil.copy(backup, disk)
    guest = start(disk, new_guid())
    assert ran(guest) == "1\n" and guest.generation() == 1
