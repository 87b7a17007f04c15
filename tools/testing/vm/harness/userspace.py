# SPDX-License-Identifier: GPL-2.0
"""Images with sysgenid(8) and sysgenidd(8): a bare one, and one with systemd."""
import hashlib
import re
import shutil
import tarfile
from pathlib import Path

from harness import build, debian, host, packages
from harness.archive import Archive
from harness.guest import Guest
from harness.initramfs import Image
from harness.kernels import Kernel

HOOKS = "/etc/sysgenid/hooks.d"
SHIPPED_HOOKS = "/usr/share/sysgenid/hooks"
STATE_DIRECTORY = "/var/lib/sysgenid"
STATE = f"{STATE_DIRECTORY}/state"
OUTPUT = host.BUILD / "userspace"
# The modules of the gate's port, in the order of loading.
PORT_MODULES = tuple(f"kernel/drivers/{name}.ko" for name in (
    "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci", "char/virtio_console"))
WAIT_SETTLED = host.ROOT / "tools/sysgenid/examples/qemu-wait-settled"
MAKE = ("make", "-s", "-C", host.ROOT / "tools/sysgenid", f"OUTPUT={OUTPUT}",
        f"LIBSYSGENID={OUTPUT}/lib/libsysgenid.a", "CFLAGS=-O2 -Wall -Wextra -Werror")
# A Debian with systemd, udev and journald, and no D-Bus daemon.
INCLUDED = ("systemd", "systemd-sysv", "udev", "kmod", "libjson-c5", "e2fsprogs", "procps")
LEFT_OUT = re.compile(r"usr/share/(doc|man|locale|info|perl.*|zoneinfo|i18n|bash-completion)/|"
                      r"usr/lib/(apt|gcc)/|usr/bin/(apt|perl|dpkg|gpgv)|usr/lib/dpkg/|"
                      r"usr/lib/x86_64-linux-gnu/(perl|gconv|libapt|libstdc|e2fsprogs)|"
                      r"usr/lib/udev/hwdb|etc/udev/hwdb|usr/lib/locale|boot/|dev/|proc/.|sys/.|"
                      r"var/(cache|lib/apt|lib/dpkg)/.|lost\+found|usr/lib/systemd/catalog/")
MULTI_USER = "etc/systemd/system/multi-user.target.wants"
FILES = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "guest\n",
    "etc/fstab": "",
    "etc/systemd/system/agent.service": debian.AGENT,
    f"{MULTI_USER}/agent.service": "-> ../agent.service",
    "etc/systemd/system/serial-getty@ttyS0.service": "-> /dev/null",
    "etc/systemd/system/getty.target": "-> /dev/null",
    "init": "-> /lib/systemd/systemd",
}


def make_image(kernel: Kernel) -> Path:
    """Writes the kernel's default image with sysgenid(8) and sysgenidd(8)."""
    image = build.directory(kernel) / "userspace.cpio"
    with host.locked("userspace", host.BUILD):
        host.run(MAKE, "building sysgenid(8) and sysgenidd(8)")
        contents = build.new_image(kernel)
        for name in ("sysgenid", "sysgenidd"):
            contents.program(f"sbin/{name}", OUTPUT / name)
        contents.file("etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        contents.file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        return contents.write(image)


def make_base() -> Path:
    """Returns a tar archive of a Debian with systemd, without our programs."""
    name = hashlib.sha256(" ".join(INCLUDED).encode()).hexdigest()[:16]
    tar = host.CACHE / f"systemd_{name}" / "root.tar"
    with host.locked("systemd"):
        if not host.cached(tar.parent):
            packages.install(("mmdebstrap", "tar"))
            host.progress("making a Debian with systemd (a minute)")
            for old in host.CACHE.glob("systemd_*"):
                shutil.rmtree(old)
            with host.making(tar.parent) as temporary:
                packages.as_root(["mmdebstrap", "--variant=minbase",
                                  "--dpkgopt=force-unsafe-io", f"--include={','.join(INCLUDED)}",
                                  "bookworm", str(temporary / tar.name),
                                  *Archive("bookworm").sources()],
                                 "making a Debian with systemd")
    return tar


def add_archive(image: Image, archive: Path) -> None:
    """Adds the archive's members, except those that match LEFT_OUT."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name not in (".", "") and not LEFT_OUT.match(name):
                debian.add_member(image, tar, member, name)


def load_kernel_module(guest: Guest, name: str) -> None:
    """Loads one of the kernel's own modules, unless it is built in."""
    guest.run(f"for file in /modules/{name} /modules/{name}.xz; do"
              " test ! -e $file || insmod $file || exit 1; done")


def make_systemd_image(kernel: Kernel, modules: tuple[str, ...] = (),
                       files: dict[str, str] | None = None, programs: bool = False) -> Path:
    """Writes a Debian with systemd, after `make install-userspace`, into an image.

    modules are paths of the kernel's own modules below its directory; built-in ones
    are skipped. With files, our modules are installed too, so that udev loads them.
    With programs, those of the tests are in /test.
    """
    base = make_base()
    with host.locked("userspace", host.BUILD):
        root = OUTPUT / "root"
        shutil.rmtree(root, ignore_errors=True)
        host.run([*MAKE, "install", f"DESTDIR={root}"], "installing sysgenid(8) and sysgenidd(8)")
        image = Image()
        add_archive(image, base)
        image.add("dev/console", 0o020600, device=(5, 1))
        image.directory(HOOKS)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(root))
                # In Debian, /lib is a symbolic link to usr/lib.
                image.file(f"usr/{name}" if name.startswith("lib/") else name, path)
        if files:
            shutil.rmtree(root)
            build.install_modules(kernel, root / "modules")
            image.tree("usr/lib", root / "modules/lib")
        for name, content in (FILES | (files or {})).items():
            if content.startswith("-> "):
                image.link(name, content[3:])
            else:
                image.file(name, content, 0o755 if content.startswith("#!") else 0o644)
        own = (kernel.modules / f"{name}{packed}" for name in modules for packed in ("", ".xz"))
        for module in (*build.built_modules(kernel), *filter(Path.exists, own)):
            image.file(f"modules/{module.name}", module)
        for program in build.programs() if programs else ():
            image.file(f"test/{program.name}", program)
        image.file("agent", build.agent())
        variant = f"{'-installed' if files else ''}{'-programs' if programs else ''}"
        return image.write(build.directory(kernel) / f"systemd{variant}.cpio")
