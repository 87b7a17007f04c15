# SPDX-License-Identifier: GPL-2.0
"""One hibernation image that is resumed twice is a clone, too."""
import shutil
from dataclasses import replace
from pathlib import Path

import kernels
import pytest
from channel import Program
from guest import Guest, new_guid

# It takes a disk, whose interrupt firmware finds only in time where nothing slows it.
pytestmark = pytest.mark.kernels(*kernels.STOCK)
DISK = "/dev/nvme0n1"
DISK_SIZE = 512 << 20
OVMF = Path("/usr/share/ovmf/OVMF.fd")


@pytest.fixture
def hibernated(boot, logs):
    """Gives a function that hibernates a guest and one that resumes it."""
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
        sleeper = guest.start("echo disk > /sys/power/state")
        guest.process.wait(60 * guest.patience)
        return guest, watcher, sleeper

    def resume(guest: Guest, guid: str, sleeper: Program) -> Guest:
        copy = logs / f"disk{len(guest.children)}"
        shutil.copyfile(disk, copy)
        options = replace(guest.options, guid=guid, disk=copy,
                          append=f"hibernate=nocompress resume={DISK} resumewait")
        resumed = Guest(options, logs, f"resumed{len(guest.children)}",
                        resumed=guest.channel.drain(30))
        guest.children.append(resumed)
        assert resumed.program(sleeper).wait(60 * guest.patience) == 0
        return resumed

    return start, resume


def test_image_resumed_with_another_guid_is_a_new_generation(hibernated):
    hibernate, resume = hibernated
    guest, watcher, sleeper = hibernate("shutdown")
    with resume(guest, new_guid(), sleeper) as clone:
        clone.program(watcher).wait_for("^woken 1$")
    with resume(guest, guest.options.guid, sleeper) as same:
        assert same.generation() == 0


def test_image_resumed_under_uefi_is_a_new_generation_always(hibernated):
    """It keeps the GUID in NVS memory, which the kernel puts back."""
    hibernate, resume = hibernated
    guest, watcher, sleeper = hibernate("platform", machine="q35", firmware=OVMF)
    with resume(guest, new_guid(), sleeper) as clone:
        clone.program(watcher).wait_for("^woken 1$")
