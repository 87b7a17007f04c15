# SPDX-License-Identifier: GPL-2.0
"""A hibernation image that is resumed twice is a clone.

A resume counts if the hypervisor has given a new GUID. It always counts if the kernel
has restored its copy of NVS memory over the GUID: then nobody knows which one was there.
That takes firmware with the GUID in NVS memory (UEFI's, but not SeaBIOS's), and the mode
"platform", which needs an _S4. A resume counts:

    ==========  ==========  ===============  =========  ========
    disk=       firmware's  GUID             same GUID  new GUID
    ==========  ==========  ===============  =========  ========
    shutdown    either      SeaBIOS or UEFI  0          1
    reboot      either      SeaBIOS or UEFI  0          1
    platform    with _S4    SeaBIOS          0          1
    platform    with _S4    UEFI             1          1
    platform    no _S4      SeaBIOS or UEFI  the kernel refuses the mode
    ==========  ==========  ===============  =========  ========
"""
import itertools
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from harness import acpi_tables, kernels, packages
from harness.channel import Program
from harness.guest import Guest, new_guid

# The tests take a disk. Firmware finds its interrupt in time only if nothing slows it.
pytestmark = pytest.mark.kernels(*kernels.STOCK)
DISK = "/dev/nvme0n1"
DISK_SIZE = 512 << 20
OVMF = Path("/usr/share/ovmf/OVMF.fd")


@pytest.fixture
def hibernated(boot, logs):
    """Returns a function that hibernates a guest, and one that resumes it."""
    disk = logs / "disk"

    def start(mode: str, **options) -> tuple[Guest, Program, Program]:
        with open(disk, "wb") as file:
            file.truncate(DISK_SIZE)
        guest = boot(fresh=True, disk=disk, memory=256,
                     append="hibernate=nocompress", **options)
        if guest.status(f"[ -b {DISK} ] && [ -w /sys/power/disk ]"):
            pytest.skip("this kernel can't hibernate to NVMe without modules of its own")
        guest.load_modules()
        guest.run(f"mkswap {DISK} && swapon {DISK} && echo {mode} > /sys/power/disk")
        watcher = guest.start("wait_generation map")
        watcher.wait_for("^watching 0$")
        waiter = guest.start("echo disk > /sys/power/state")
        guest.process.wait(60 * guest.patience)
        return guest, watcher, waiter

    def resume(guest: Guest, guid: str, waiter: Program) -> Guest:
        copy = logs / f"disk{len(guest.children)}"
        shutil.copyfile(disk, copy)
        options = replace(guest.options, guid=guid, disk=copy,
                          append=f"hibernate=nocompress resume={DISK} resumewait")
        resumed = Guest(options, logs, f"resumed{len(guest.children)}",
                        resumed=guest.channel.drain(30))
        guest.children.append(resumed)
        assert resumed.program(waiter).wait(120 * guest.patience) == 0
        return resumed

    return start, resume


@dataclass(frozen=True)
class Firmware:
    options: dict
    without_s4: str
    guid_in: str        # as /proc/iomem calls it


FIRMWARES = {
    "seabios": Firmware({"machine": "pc"}, "PIIX4_PM.disable_s4=1", "Reserved"),
    "uefi": Firmware({"machine": "q35", "firmware": OVMF}, "ICH9-LPC.disable_s4=1",
                     "ACPI Non-volatile Storage"),
}


def options_of(name: str, has_s4: bool) -> dict:
    firmware = FIRMWARES[name]
    if "firmware" in firmware.options:
        packages.install(("ovmf",))
    return {**firmware.options, "settings": () if has_s4 else ("-global", firmware.without_s4)}


def memory_of_guid(guest: Guest) -> str:
    """Returns the type of memory that firmware has chosen for the GUID."""
    guid = acpi_tables.find_guid(acpi_tables.dump(guest, "SSDT"))
    return next(kind for start, end, kind in re.findall(
        r"^(\w+)-(\w+) : (.*)$", guest.run("cat /proc/iomem"), re.M)
                if int(start, 16) <= guid <= int(end, 16))


# make check runs these, which failed once; the others take long.
QUICK = {("seabios", True, "shutdown"), ("uefi", True, "shutdown"), ("uefi", True, "platform")}
WAYS = [pytest.param(*way, marks=() if way in QUICK else pytest.mark.long)
        for way in itertools.product(FIRMWARES, (True, False), ("shutdown", "reboot", "platform"))
        if way[1:] != (False, "platform")]


@pytest.mark.parametrize("firmware, has_s4, mode", WAYS)
def test_resume_counts_new_or_overwritten_guid_once(
        hibernated, firmware, has_s4, mode):
    hibernate, resume = hibernated
    guest, watcher, waiter = hibernate(mode, **options_of(firmware, has_s4))
    put_back = firmware == "uefi" and mode == "platform"
    with resume(guest, new_guid(), waiter) as clone:
        clone.program(watcher).wait_for("^woken 1$")
        clone.unload_backend()
        assert clone.generation() == 1
        assert memory_of_guid(clone) == FIRMWARES[firmware].guid_in
    with resume(guest, guest.options.guid, waiter) as same:
        assert same.generation() == put_back
        same.unload_backend()
        assert same.generation() == put_back


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_platform_hibernation_needs_s4(boot, firmware):
    guest = boot(fresh=True, memory=256, **options_of(firmware, False))
    assert "platform" not in guest.run("cat /sys/power/disk")
    assert guest.status("echo platform > /sys/power/disk")
