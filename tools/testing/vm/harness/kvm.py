# SPDX-License-Identifier: GPL-2.0
"""KVM as the host: a machine that has it, and runs this checkout's tests inside.

    with KvmHost(kernel, logs) as machine:
        print(machine.test("tests/driver/test_snapshot.py"))

QEMU emulates the machine with AMD's virtualization, so that no /dev/kvm is needed. Its
files are this machine's: the checkout, the cache and all programs have the same paths.
"""
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from harness import host, nested, required
from harness.guest import Guest, Options
from harness.kernels import Kernel

# As of harness/guest.py without cmpxchg16b; and without XSAVE, of whose sizes the kernel of
# a guest in such a machine warns.
MACHINE_CPU = "qemu64,-cx16"
MEMORY = 3072   # MiB
# MiB that a run writes here.
SPACE = 256
DRIVERS = ("9pnet_virtio", "9p", "kvm-amd")
# The time limit of a run.
SECONDS = 3600
# Guests are that much slower than those of this machine.
PATIENCE = 5
# To the kernel's command line: each character on the console is an exit to QEMU.
APPEND = "loglevel=5"


def slower(kernel: Kernel) -> Kernel:
    """The kernel for guests in such a machine."""
    return replace(kernel, patience=PATIENCE, append=f"{kernel.append} {APPEND}".strip())


class KvmHost(Guest):
    """The machine that has KVM."""

    def __init__(self, kernel: Kernel, logs: Path):
        logs.mkdir(parents=True, exist_ok=True)
        required.space(logs, SPACE)
        nested.require(MACHINE_CPU)
        image = nested.new_image(kernel, DRIVERS).write(logs / "kvm.cpio")
        super().__init__(Options(replace(kernel, patience=nested.PATIENCE), image, smp=2,
                                 memory=MEMORY, seconds=SECONDS), logs, "kvm")
        # The checkout may be below the /tmp of this machine.
        self.run("umount /tmp", 60)

    def _arguments(self) -> list[str]:
        return [*nested.arguments(self, MACHINE_CPU), "-kernel", str(self.options.kernel.image),
                "-initrd", str(self.options.image),
                "-append", f"{nested.APPEND_OF_HOST} shared_root console=ttyS0"]

    def test(self, *arguments: str) -> str:
        """Runs tests of this checkout in guests that KVM runs, and returns pytest's output."""
        pytest = (sys.executable, "-m", "pytest", "-v", "--nested",
                  f"--override-ini=timeout={SECONDS}", *arguments)
        program = self.start(
            f"cd {host.ROOT}/tools/testing/vm && rm -rf {host.BUILD}/booted-* &&"
            f" ACCEL=kvm SYSGENID_CACHE={host.CACHE} {shlex.join(pytest)}")
        program.wait(SECONDS)
        return program.output
