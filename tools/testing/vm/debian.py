# SPDX-License-Identifier: GPL-2.0
"""Debian packages of all this, and a Debian to boot that has them installed.

As a program: builds the packages into build/deb/ and has lintian judge them.
"""
import hashlib
import re
import shutil
import tarfile
from pathlib import Path

import build
import host
import packages
from initramfs import Image
from kernels import Kernel

FOR_PACKAGES = ("dpkg-dev", "debhelper", "dh-dkms", "dh-python", "gcc", "libc6-dev",
                "libgcrypt20-dev", "libjson-c-dev", "libssl-dev", "libsystemd-dev", "pkgconf",
                "lintian", "git")
FOR_ROOT = (*FOR_PACKAGES, "mmdebstrap", "tar")
DEBS = host.BUILD / "deb"
# What a changelog has to have at its start for the packages of a next version.
NEXT = """sysgenid (99.0) unstable; urgency=medium

  * What comes after this, to try upgrades.

 -- sysgenid developers <sysgenid@sysgenid.example>  Sat, 21 Nov 2026 13:00:00 +0000

"""
# The unit that runs the host's commands in a guest.
AGENT = """[Unit]
Description=What runs the host's commands
DefaultDependencies=no
After=multi-user.target
[Service]
ExecStart=/agent /dev/ttyS1
KillMode=process
"""
# What the Debian to boot has, beside our packages and the kernels' headers.
INCLUDED = ("systemd", "systemd-sysv", "udev", "dbus", "kmod", "openssh-server", "procps",
            "ifupdown", "isc-dhcp-client", "openssl", "dkms", "gcc", "make", "libc6-dev", "python3")
# What is of no use in a running guest, and of the kernel's modules what isn't
# needed without disks, and with a network card of QEMU's.
LEFT_OUT = re.compile(r"usr/src/|usr/lib/gcc/|usr/include/|usr/share/(doc|man|locale|info|perl)/|"
                      r"usr/libexec/gcc/|usr/lib/python3/|usr/lib/linux-kbuild|"
                      r"usr/bin/(x86_64-linux-gnu-|perl.|gdb)|boot/|dev/|proc/.|sys/.|"
                      r"var/(cache|lib/apt|lib/dkms)/.|usr/lib/x86_64-linux-gnu/perl5?/|"
                      r".*\.a$|usr/lib/x86_64-linux-gnu/lib(asan|tsan|ubsan|lsan|cc1)|"
                      r"usr/lib/modules/[^/]+/(build|source|kernel/(?!fs/autofs|fs/fuse|"
                      r"drivers/virtio|drivers/net/virtio|(drivers/net|net/core)/(net_)?failover))")


def sources() -> list[Path]:
    """The files of this checkout that go into the packages."""
    listed = host.run(["git", "-C", host.ROOT, "ls-files", "-co", "--exclude-standard", "--",
                       "debian", "dkms.conf", "Kbuild", "compat", "drivers", "include", "tools/lib",
                       "tools/sysgenid", "tools/openssl"], "listing the sources")
    return [host.ROOT / name for name in listed.split("\n") if (host.ROOT / name).is_file()]


def digest(*more: str) -> str:
    """Names the state of the sources, and of what else is given."""
    found = hashlib.sha256("\0".join(more).encode())
    for path in sources():
        found.update(f"{path.relative_to(host.ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def make_packages(folder: Path = DEBS, news: str = "") -> list[Path]:
    """Builds the packages, unless those of these very sources are there."""
    with host.locked(folder.name, host.BUILD):
        return find_or_make_packages(folder, news)


def find_or_make_packages(folder: Path, news: str) -> list[Path]:
    stamp = folder / "sources"
    now = digest(news)
    if not stamp.exists() or stamp.read_text() != now:
        host.progress("building the Debian packages")
        tree = folder / "sysgenid"
        shutil.rmtree(folder, ignore_errors=True)
        for path in sources():
            copy = tree / path.relative_to(host.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        changelog = tree / "debian/changelog"
        changelog.write_text(news + changelog.read_text())
        host.run(["dpkg-buildpackage", "-us", "-uc", "-b"], "building the packages", cwd=tree)
        shutil.rmtree(tree)
        stamp.write_text(now)
    return sorted(path for path in folder.glob("*.deb") if "-dbgsym" not in path.name)


def make_next_packages() -> list[Path]:
    """The packages of a later version, for upgrades; otherwise the same."""
    return make_packages(host.BUILD / "deb-next", NEXT)


def judge_packages() -> None:
    said = host.run(["lintian", "--allow-root", "--fail-on", "error,warning",
                     *DEBS.glob("*.changes")], "judging the packages")
    if said:
        host.progress(said.strip())


def make_tar(name: str, included: tuple[str, ...]) -> Path:
    """A Debian with these packages, as an archive in the cache."""
    include = ",".join(included)
    tar = host.CACHE / f"{name}_{hashlib.sha256(include.encode()).hexdigest()[:16]}" / "root.tar"
    with host.locked(name):
        if not tar.exists():
            host.progress("making a Debian to boot (a few minutes)")
            for old in host.CACHE.glob(f"{name}_*"):
                shutil.rmtree(old)
            with host.making(tar.parent) as temporary:
                packages.as_root(["mmdebstrap", "--quiet", "--variant=minbase",
                                  "--dpkgopt=force-unsafe-io",
                                  f"--include={include}", "bookworm", str(temporary / tar.name)],
                                 "making a Debian")
    return tar


def make_base(kernels: list[Kernel]) -> Path:
    """A Debian with the headers of those kernels, before our packages are in."""
    return make_tar("debian", (*INCLUDED, *(f"linux-headers-{kernel.release}" for kernel in kernels)))


INSTALL = r"""
set -e
root=$1/root
mkdir "$root"
tar -xpf "$2" -C "$root"
for modules in $4; do
	cp -a "$modules/kernel" "$modules"/modules.order "$modules"/modules.builtin* \
		"$root/lib/modules/${modules##*/}"
done
cp $3 "$root/tmp/"
echo 'exit 101' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
# For the machine that this runs on, it is not.
echo autoinstall_all_kernels=y >> "$root/etc/dkms/framework.conf"
mount -t proc proc "$root/proc"
chroot "$root" sh -ec 'apt-get -q install -y --no-install-recommends /tmp/*.deb'
for modules in $4; do
	ls "$root/lib/modules/${modules##*/}/updates/dkms/"vm_generation_id.ko*
done
umount "$root/proc"
rm "$root/usr/sbin/policy-rc.d" "$root"/tmp/*.deb
tar -cf "$5" -C "$root" --exclude=./usr/src --exclude=./usr/lib/gcc --exclude=./var/cache .
"""


def make_root(kernels: list[Kernel]) -> Path:
    """That Debian with our packages installed, the modules built by DKMS."""
    with host.locked("debian-root", host.BUILD):
        return find_or_make_root(kernels)


def find_or_make_root(kernels: list[Kernel]) -> Path:
    debs = make_packages()
    base = make_base(kernels)
    root = host.BUILD / "debian-root"
    tar = root / f"{digest(str(base), *(kernel.release for kernel in kernels))}.tar"
    if not tar.exists():
        host.progress("installing the packages in it")
        shutil.rmtree(root, ignore_errors=True)
        with host.making(root) as temporary:
            modules = " ".join(str(kernel.modules) for kernel in kernels)
            try:
                packages.as_root(
                    ["unshare", "-m", "sh", "-c", INSTALL, "install", str(temporary), str(base),
                     " ".join(map(str, debs)), modules, str(temporary / tar.name)], "installing the packages in a Debian")
            finally:
                packages.as_root(["rm", "-rf", str(temporary / "root")], "tidying up")
    return tar


def add_member(image: Image, source: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
    """Copies what the archive has, with its owner, into the image."""
    owner = (member.uid, member.gid)
    if member.isdir():
        image.add(name, 0o040000 | member.mode, owner=owner)
    elif member.issym():
        image.add(name, 0o120777, member.linkname.encode(), owner=owner)
    elif member.isfile() or member.islnk():
        image.add(name, 0o100000 | member.mode, source.extractfile(member).read(), owner=owner)


def make_image(kernel: Kernel, kernels: list[Kernel], files: dict[str, str | Path]) -> Path:
    """The Debian as an image that the kernel unpacks, with more files in it."""
    image = Image()
    image.add("dev", 0o040755)
    image.add("dev/console", 0o020600, device=(5, 1))
    with tarfile.open(make_root(kernels)) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            other = re.match(r"usr/lib/modules/([^/]+)", name)
            if name in (".", "") or LEFT_OUT.match(name) or (
                    other and other[1] != kernel.release):
                continue
            add_member(image, tar, member, name)
    for name, content in files.items():
        if isinstance(content, Path):
            image.file(name, content)
        elif content.startswith("-> "):
            image.link(name, content[3:])
        else:
            image.file(name, content, 0o755 if content.startswith("#!") else 0o644)
    image.file("agent", build.PROGRAMS / "agent")
    image.link("init", "/lib/systemd/systemd")
    return image.write(host.BUILD / f"debian-{kernel.name}.cpio")


def main() -> None:
    packages.install(FOR_PACKAGES)
    for path in make_packages():
        print(path.relative_to(host.ROOT))
    judge_packages()


if __name__ == "__main__":
    host.main(main)
