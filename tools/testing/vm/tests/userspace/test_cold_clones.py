# SPDX-License-Identifier: GPL-2.0
"""Systems that were copied, or whose disk was rolled back, while they were off."""
import shutil
import subprocess
from dataclasses import replace

import pytest
from harness import kernels, userspace
from harness.guest import Guest, new_guid
from harness.userspace import HOOKS, STATE_DIRECTORY

pytestmark = [pytest.mark.kernels("6.1-cloud", "6.12-cloud"), pytest.mark.debian]

DISK_SIZE = 64 << 20
# The disk keeps only the overseer's state; the guests' root is in RAM.
FSTAB = f"/dev/nvme0n1 {STATE_DIRECTORY} ext4 defaults 0 0\n"
# The network waits for this unit, which records whether the hook ran before it.
NETWORK = f"""[Unit]
DefaultDependencies=no
After=network-pre.target
[Service]
Type=oneshot
ExecStart=-/bin/cp {STATE_DIRECTORY}/ran /run/ran-before-network
"""
# The hook does not end during the boot that the file "held" names.
HOOK = f"""#!/bin/sh
echo $SYSGENID_GENERATION >> {STATE_DIRECTORY}/ran
cat /proc/sys/kernel/random/boot_id | cmp -s - {STATE_DIRECTORY}/held && exec sleep 1000
exit 0
"""
FILES = {
    "etc/fstab": FSTAB,
    "etc/systemd/system/early.service": NETWORK,
    f"{HOOKS}/10-note": HOOK,
    "etc/systemd/system/sysinit.target.wants/early.service": "-> ../early.service",
    "etc/systemd/system/multi-user.target.wants/sysgenidd.service":
    "-> /lib/systemd/system/sysgenidd.service",
}


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel with longer time limits, as a whole system boots slowly."""
    return replace(kernels.get(request.param), patience=2, memory=640)


@pytest.fixture(scope="module")
def image(kernel):
    return userspace.make_systemd_image(kernel, files=FILES)


@pytest.fixture
def start(boot, image, logs):
    """Returns a function that boots a system with a disk, and waits until it has settled."""
    def boot_from(disk, guid: str) -> Guest:
        guest = boot(fresh=True, image=image, disk=disk, guid=guid)
        assert guest.status("sysgenid wait-settled --timeout=200", 240) == 0, guest.run(
            "systemctl --no-pager status sysgenidd sysgenid-load; journalctl -q -u sysgenidd")
        return guest
    return boot_from


@pytest.fixture
def disk(logs):
    path = logs / "disk"
    with open(path, "wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run(["/sbin/mkfs.ext4", "-q", path], check=True)
    return path


def ran(guest) -> str:
    return guest.run(f"cat {STATE_DIRECTORY}/ran 2>/dev/null || true")


def power_off(guest) -> None:
    guest.start("systemctl poweroff -f")
    guest.process.wait(60 * guest.patience)


def test_copied_system_runs_hooks_once(start, disk, logs):
    guid = new_guid()
    guest = start(disk, guid)
    assert ran(guest) == "", "the first boot is no clone"
    power_off(guest)
    copies = [shutil.copy(disk, logs / f"copy{number}") for number in (1, 2)]

    guest = start(disk, guid)
    assert ran(guest) == "" and guest.generation() == 0, "this is the same system"
    power_off(guest)

    for copy in copies:
        copied = new_guid()
        guest = start(copy, copied)
        assert ran(guest) == "1\n" and guest.generation() == 1
        assert guest.run("cat /run/ran-before-network") == "1\n"
        said = guest.run("journalctl -q -o cat -u sysgenidd")
        assert "the system was copied or rolled back while it was off" in said
        assert guid.split("-")[0] not in guest.run(f"od -c {STATE_DIRECTORY}/state; cat /run/sysgenid/*")
        assert guest.run(f"stat -c %a {STATE_DIRECTORY}/state") == "600\n"
        power_off(guest)
        guest = start(copy, copied)
        assert ran(guest) == "1\n" and guest.generation() == 0, "the copy has settled before"
        power_off(guest)


def test_new_guid_at_each_boot_can_be_ignored(boot, image, disk, start):
    power_off(start(disk, new_guid()))
    guest = boot(fresh=True, image=image, disk=disk, guid=new_guid(), append=(
        "systemd.setenv=SYSGENIDD_OPTIONS=--cold-clones=no"))
    assert guest.status("sysgenid wait-settled --timeout=200", 240) == 0
    assert ran(guest) == "" and guest.generation() == 0
    assert "ignored, because of --cold-clones=no" in guest.run("journalctl -q -o cat -u sysgenidd")


def test_unsettled_generation_continues_after_reboot(start, disk):
    guid = new_guid()
    guest = start(disk, guid)
    guest.run(f"cat /proc/sys/kernel/random/boot_id > {STATE_DIRECTORY}/held; sysgenid trigger;"
              f"until test -e {STATE_DIRECTORY}/ran; do sleep 0.1; done")
    power_off(guest)
    guest = start(disk, guid)
    assert ran(guest) == "1\n0\n"
    assert "generation 1 did not settle before the restart of the system" in guest.run(
        "journalctl -q -o cat -u sysgenidd")
    power_off(guest)
    assert ran(start(disk, guid)) == "1\n0\n", "the generation has settled before"


def test_rolled_back_disk_runs_hooks_once(start, disk, logs):
    guid = new_guid()
    power_off(start(disk, guid))
    backup = shutil.copy(disk, logs / "backup")
    # The system reboots once before the host rolls its disk back.
    guest = start(disk, guid)
    assert ran(guest) == "" and guest.generation() == 0
    power_off(guest)
    shutil.copy(backup, disk)
    # A host gives a new GUID with a rollback, as with each restore.
    rolled_back = new_guid()
    guest = start(disk, rolled_back)
    assert ran(guest) == "1\n" and guest.generation() == 1
    power_off(guest)
    guest = start(disk, rolled_back)
    assert ran(guest) == "1\n" and guest.generation() == 0, "the system has settled before"
    power_off(guest)
    # A second rollback to the same backup is another clone.
    shutil.copy(backup, disk)
    guest = start(disk, new_guid())
    assert ran(guest) == "1\n" and guest.generation() == 1
