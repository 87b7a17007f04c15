# SPDX-License-Identifier: GPL-2.0
"""The packages in a Debian whose kernel has its own generation ID driver as a module.

Debian has no such kernel, so built_kernels.py builds one.
"""
from dataclasses import replace

import pytest
from harness import built_kernels, debian, kernels
from harness.guest import Guest, Options, new_guid

pytestmark = pytest.mark.debian

NAME = "6.12-module"
FILES = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "debian\n",
    "etc/fstab": "",
    "etc/systemd/system/agent.service": debian.AGENT,
    "etc/systemd/system/multi-user.target.wants/agent.service": "-> ../agent.service",
    "etc/systemd/system/serial-getty@ttyS0.service": "-> /dev/null",
    "etc/systemd/system/getty.target": "-> /dev/null",
}
OURS, KERNELS = "vm_generation_id", "vmgenid"
LOADED = rf"sed -n 's/^\({OURS}\|{KERNELS}\) .*/\1/p' /proc/modules"
BY_NAME = "modprobe --show-depends vmgenid | tail -n 1"
BY_DEVICE = "modprobe --show-depends $(cat /sys/bus/acpi/devices/QEMUVGID:*/modalias)"
RESEEDS = "dmesg | grep -c 'crng reseeded due to virtual machine fork'"


@pytest.fixture
def guest(logs) -> Guest:
    """A booted Debian with the packages, and with the kernel's own module."""
    own = built_kernels.install_modules(kernels.get(NAME), logs / "modules")
    image = debian.make_image(own, debian.kernels_with(own), FILES)
    options = Options(replace(own, memory=768), image, guid=new_guid())
    with Guest(options, logs) as booted:
        booted.run("until systemctl -q is-active sysgenidd; do sleep 0.2; done", 120)
        yield booted


@pytest.mark.timeout(3600)  # the kernel is built in this time, once
def test_driver_works_beside_kernel_module_and_purge_keeps_it(guest):
    assert set(guest.run(LOADED).split()) == {OURS, KERNELS}, "udev loads both"
    assert guest.run("cat /sys/class/misc/sysgenid/source") == "vmgenid\n"
    assert f"updates/dkms/{OURS}.ko" in guest.run(BY_NAME)
    with guest.snapshot() as snap, snap.restore_all(None, None) as clones:
        assert [clone.generation() for clone in clones] == [1, 1]
        purged = clones[0]
        purged.run("systemctl stop sysgenidd && dpkg --purge sysgenid-dkms", 120)
        assert purged.run("find /lib/modules -path '*/updates/*.ko*'") == ""
        assert f"drivers/virt/{KERNELS}.ko" in purged.run(BY_NAME)
        assert [line.split("/")[-1] for line in purged.run(BY_DEVICE).splitlines()] == [
            f"{KERNELS}.ko "], "udev loads it by this alias at the next boot"
        # The kernel's own driver stays: after its removal, Linux 6.12 oopses at an event.
        purged.run(f"rmmod {OURS} sysgenid")
        assert purged.run(LOADED) == f"{KERNELS}\n"
        before = int(purged.run(RESEEDS))
        with purged.snapshot() as again, again.restore() as clone:
            clone.run(f"until [ $({RESEEDS}) -gt {before} ]; do :; done")
