# SPDX-License-Identifier: GPL-2.0
"""Machines that are hosts themselves, with a Debian on a disk, and the agent as first process.

The disk is only read; what such a machine writes is in its memory.
"""
import hashlib
import shutil
from pathlib import Path

from harness import build, debian, host, packages
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
# Of the kernel whose root is that disk.
APPEND_OF_HOST = f"{APPEND} DISK_INIT=/init"


def make_disk(name: str, included: tuple[str, ...]) -> tuple[Path, Path]:
    """A Debian with these packages, as an archive and as a file system."""
    packages.install(debian.FOR_ROOT)
    base = debian.make_tar(name, included)
    folder = host.BUILD / f"{name}-disk"
    disk = folder / f"{hashlib.sha256(f'{base}{MAKE_DISK}'.encode()).hexdigest()[:16]}.ext4"
    with host.locked(folder.name, host.BUILD):
        if not disk.exists():
            shutil.rmtree(folder, ignore_errors=True)
            with host.making(folder) as temporary:
                try:
                    packages.as_root(["sh", "-c", MAKE_DISK, "disk", str(temporary), str(base),
                                      str(temporary / disk.name)], f"making the disk for {name}")
                finally:
                    packages.as_root(["rm", "-rf", str(temporary / "root")], "tidying up")
    return base, disk


def new_image(kernel: Kernel, drivers: tuple[str, ...]) -> Image:
    """The initramfs that mounts the disk; what is added below files/ is on it."""
    image = disk_image(kernel, (*DRIVERS, "crc32c_generic", "ext4", *drivers))
    image.file("files/init", build.GUEST / "init")
    image.file("files/agent", build.agent())
    return image


def arguments(machine: Guest, cpu: str) -> list[str]:
    """QEMU's arguments, except for what boots. That CPU has AMD's virtualization."""
    options = machine.options
    return [
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg",
        "-cpu", cpu, "-smp", str(options.smp), "-m", str(options.memory),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-chardev", f"file,id=console,path={machine.console}", "-mon", "chardev=qmp,mode=control",
        "-serial", "chardev:console", "-serial", "chardev:agent",
        "-blockdev", "driver=raw,node-name=root,read-only=on,file.driver=file,"
        f"file.filename={options.root}", "-device", "virtio-blk-pci,drive=root"]
