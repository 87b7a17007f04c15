# SPDX-License-Identifier: GPL-2.0
"""Machines that are hosts themselves, with the agent as first process.

The root is a Debian on a disk, or all files of this machine. Both are only read; what
such a machine writes is in its memory.
"""
import hashlib
import shutil
import subprocess
from pathlib import Path

from harness import build, debian, host, packages, required
from harness.debian_disk import DRIVERS, disk_image
from harness.guest import APPEND, Guest
from harness.initramfs import Image
from harness.kernels import Kernel

MAKE_DISK = r"""
set -e
mkdir "$1/root"
tar -xpf "$2" -C "$1/root"
mke2fs -q -t ext4 -O ^has_journal -d "$1/root" "$3" 4G
"""
# Factor by which such a machine is slower to start than a guest.
PATIENCE = 4
VIRTUALIZATION = ("svm", "npt")
# The arguments of the kernel with that root.
APPEND_OF_HOST = f"{APPEND} DISK_INIT=/init"


def make_disk(name: str, included: tuple[str, ...]) -> tuple[Path, Path]:
    """A Debian with these packages, as an archive and as a file system."""
    packages.install(debian.FOR_ROOT)
    base = debian.make_tar(name, included)
    directory = host.BUILD / f"{name}-disk"
    disk = directory / f"{hashlib.sha256(f'{base}{MAKE_DISK}'.encode()).hexdigest()[:16]}.ext4"
    with host.locked(directory.name, host.BUILD):
        if not disk.exists():
            shutil.rmtree(directory, ignore_errors=True)
            with host.making(directory) as temporary:
                try:
                    packages.as_root(["sh", "-c", MAKE_DISK, "disk", str(temporary), str(base),
                                      str(temporary / disk.name)], f"making the disk for {name}")
                finally:
                    packages.as_root(["rm", "-rf", str(temporary / "root")], "tidying up")
    return base, disk


def new_image(kernel: Kernel, drivers: tuple[str, ...]) -> Image:
    """The initramfs that mounts the root; what is added below files/ is on it."""
    image = disk_image(kernel, (*DRIVERS, "crc32c_generic", "ext4", *drivers))
    image.file("files/init", build.GUEST / "init")
    image.file("files/agent", build.agent())
    return image


def with_virtualization(cpu: str) -> str:
    """The CPU, with AMD's virtualization."""
    return ",".join((cpu, *(f"+{feature}" for feature in VIRTUALIZATION)))


def require(cpu: str) -> None:
    """Skips the test, or fails it under CI, unless QEMU emulates virtualization for that CPU."""
    required.programs("qemu-system-x86_64")
    done = subprocess.run(
        ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu",
         f"{with_virtualization(cpu)},enforce", "-nodefaults", "-display", "none", "-S",
         "-monitor", "stdio"], input="quit\n", stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        required.missing(f"QEMU has no nested virtualization ({' '.join(VIRTUALIZATION)}; "
                         f"{done.stderr.strip().rpartition(': ')[2]}): "
                         "install Debian's package qemu-system-x86")


def arguments(machine: Guest, cpu: str) -> list[str]:
    """QEMU's arguments, except for what boots. The CPU gets AMD's virtualization."""
    options = machine.options
    argv = [
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg",
        "-cpu", with_virtualization(cpu), "-smp", str(options.smp), "-m", str(options.memory),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-chardev", f"file,id=console,path={machine.console}", "-mon", "chardev=qmp,mode=control",
        "-serial", "chardev:console", "-serial", "chardev:agent"]
    if options.root:
        return [*argv, "-blockdev", "driver=raw,node-name=root,read-only=on,file.driver=file,"
                f"file.filename={options.root}", "-device", "virtio-blk-pci,drive=root"]
    return [*argv, "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,"
            "multidevs=remap", "-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
