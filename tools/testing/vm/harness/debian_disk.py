# SPDX-License-Identifier: GPL-2.0
"""Guests whose root is a Debian on a disk, with the services that hooks deal with.

No service starts by itself. A guest's changes go into RAM, or to a disk of their own,
which can be copied.
"""
import hashlib
import lzma
import shutil
import subprocess
from pathlib import Path

from harness import build, debian, host, packages, userspace
from harness.initramfs import Image
from harness.kernels import Kernel

INCLUDED = (*userspace.INCLUDED, "dbus", "openssh-server", "openssl", "chrony", "open-iscsi",
            "nvme-cli", "network-manager", "dhcpcd5", "cloud-init")
MULTI_USER = userspace.MULTI_USER
INSTALL = r"""
set -e
root=$1/root
mkdir "$root"
tar -xpf "$2" -C "$root"
rm -rf "$root"/var/cache/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/locale
rm -f "$root"/etc/systemd/system/*.wants/* "$root"/etc/NetworkManager/conf.d/*
mkdir -p "$root/etc/cloud"
touch "$root/etc/cloud/cloud-init.disabled"
cp -a "$3/etc" "$3/usr" "$root/"
cp -a "$3/lib/." "$root/usr/lib/"
cp "$4" "$root/agent"
mkdir -p "$root/lib/modules" "$root/etc/sysgenid/hooks.d"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$5" 2G
"""
DRIVERS = ("virtio_blk", "virtio_net", "virtio_pci", "overlay")
KEEP_CHANGES = "keep_changes"
FILES = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 guest.example.org guest\n",
    "etc/fstab": "",
    "etc/systemd/system/agent.service": debian.AGENT,
    f"{MULTI_USER}/agent.service": "-> ../agent.service",
    f"{MULTI_USER}/sysgenidd.service": "-> /lib/systemd/system/sysgenidd.service",
    "etc/systemd/system/serial-getty@ttyS0.service": "-> /dev/null",
    "etc/systemd/system/getty.target": "-> /dev/null",
}


def make_root(name: str = "hooks", included: tuple[str, ...] = INCLUDED,
              release: str = "bookworm") -> Path:
    """Returns a file system of a Debian after `make install-userspace`.

    Another name stands for a Debian with other packages, or of another release.
    """
    base = debian.make_tar(name, included, release)
    build.make_programs([])
    with host.locked(name, host.BUILD):
        directory = host.BUILD / f"{name}-disk"
        digest = hashlib.sha256(INSTALL.encode() + (build.agent()).read_bytes())
        disk = directory / f"{debian.digest(str(base), digest.hexdigest())}.ext4"
        if not disk.exists():
            host.progress("making a Debian on a disk")
            shutil.rmtree(directory, ignore_errors=True)
            with host.making(directory) as temporary:
                with host.locked("userspace", host.BUILD):
                    host.run([*userspace.MAKE, "install", f"DESTDIR={temporary}/installed"],
                             "installing sysgenid(8) and sysgenidd(8)")
                try:
                    packages.as_root(["sh", "-c", INSTALL, "install", str(temporary), str(base),
                                      str(temporary / "installed"), str(build.agent()),
                                      str(temporary / disk.name)], "making a Debian on a disk")
                finally:
                    packages.as_root(["rm", "-rf", str(temporary / "root")], "tidying up")
    return disk


def with_dependencies(kernel: Kernel, names: tuple[str, ...]) -> dict[str, Path]:
    """Returns the paths of the loadable modules, dependencies first."""
    found: dict[str, Path] = {}
    for name in names:
        for path in kernel.modules.rglob(f"{name}.ko*"):
            needs = host.run(["/sbin/modinfo", "-F", "depends", path], "reading a module")
            found |= with_dependencies(kernel, tuple(filter(None, needs.strip().split(","))))
            found.setdefault(name, path)
    return found


def disk_image(kernel: Kernel, names: tuple[str, ...]) -> Image:
    """Returns an initramfs that loads the drivers and mounts a Debian on a disk."""
    drivers = with_dependencies(kernel, names)
    image = Image().basics(build.agent())
    image.file("init", build.GUEST / "init-disk")
    image.file("drivers/order", " ".join(drivers))
    for name, path in drivers.items():
        content = path.read_bytes()
        # busybox can't load compressed modules.
        image.file(f"drivers/{name}.ko",
                   lzma.decompress(content) if path.suffix == ".xz" else content)
    return image


def make_image(kernel: Kernel, path: Path, files: dict[str, str | Path],
               drivers: tuple[str, ...] = DRIVERS) -> Path:
    """Writes an initramfs that mounts the disk, with our modules and the given files."""
    image = disk_image(kernel, drivers)
    for name, content in (FILES | files).items():
        if isinstance(content, Path):
            image.file(f"files/{name}", content)
        elif content.startswith("-> "):
            image.link(f"files/{name}", content[3:])
        else:
            image.file(f"files/{name}", content, 0o755 if content.startswith("#!") else 0o644)
    scratch = path.with_suffix(".modules")
    # Kbuild leaves files in the directory that all installations share.
    with host.locked("userspace", host.BUILD):
        build.add_module_tree(image, kernel, scratch)
    shutil.rmtree(scratch)
    return image.write(path)


def make_changes(path: Path, size: int = 256 << 20) -> Path:
    """Makes an empty disk for a guest's changes."""
    with open(path, "wb") as file:
        file.truncate(size)
    subprocess.run(["/sbin/mkfs.ext4", "-q", path], check=True)
    return path
