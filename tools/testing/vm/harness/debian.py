# SPDX-License-Identifier: GPL-2.0
"""The project's Debian packages, and a Debian root image with them installed.

Packages for another release are built inside a root of that release. Run as a program,
it builds the packages into build/deb/ and checks them with lintian.
"""
import hashlib
import re
import shutil
import tarfile
from pathlib import Path

from harness import build, host, packages, roots
from harness.archive import Archive, this_release
from harness.initramfs import Image
from harness.kernels import STOCK, Kernel, stock

FOR_PACKAGES = ("build-essential", "debhelper", "dh-dkms", "dh-python", "libgcrypt20-dev",
                "libjson-c-dev", "libssl-dev", "libsystemd-dev", "pkgconf", "lintian", "git")
FOR_ROOT = (*FOR_PACKAGES, "mmdebstrap", "tar")
DEBS = host.BUILD / "deb"
# The changelog entry of a later version, for make_next_packages().
NEXT = """sysgenid (99.0) unstable; urgency=medium

  * Test an upgrade.

 -- sysgenid developers <sysgenid@sysgenid.example>  Sat, 21 Nov 2026 13:00:00 +0000

"""
# The unit that runs the host's commands in a guest.
AGENT = """[Unit]
Description=Run the host's commands
DefaultDependencies=no
After=multi-user.target
[Service]
ExecStart=/agent /dev/ttyS1
KillMode=process
"""
# The packages of the Debian root, beside ours and the kernels' headers.
INCLUDED = ("systemd", "systemd-sysv", "udev", "dbus", "kmod", "openssh-server", "procps",
            "ifupdown", "isc-dhcp-client", "openssl", "dkms", "gcc", "make", "libc6-dev", "python3",
            "libgcrypt20", "libjson-c5")
# A running guest does not need these files. It has no disk, and needs only the
# kernel's modules for a virtio network card.
LEFT_OUT = re.compile(r"usr/src/(?!sysgenid)|usr/lib/gcc/|usr/include/|usr/share/(doc|man|locale|info|perl)/|"
                      r"usr/libexec/gcc/|usr/lib/python3/|usr/lib/linux-kbuild|"
                      r"usr/bin/(x86_64-linux-gnu-|perl.|gdb)|boot/|dev/|proc/.|sys/.|"
                      r"var/(cache|lib/apt|lib/dkms(?!/sysgenid))/.|usr/lib/x86_64-linux-gnu/perl5?/|"
                      r".*\.a$|usr/lib/x86_64-linux-gnu/lib(asan|tsan|ubsan|lsan|cc1)|"
                      r"usr/lib/modules/[^/]+/(build|source|kernel/(?!fs/autofs|fs/fuse|"
                      r"drivers/virt|drivers/net/virtio|(drivers/net|net/core)/(net_)?failover))")


def sources() -> list[Path]:
    """Returns the files of this checkout that go into the packages."""
    return host.sources("debian", "dkms.conf", "Kbuild", "VERSION", "compat", "drivers", "include",
                        "tools/lib", "tools/sysgenid", "tools/openssl")


def digest(*more: str) -> str:
    """Returns a hash of the sources and the arguments."""
    found = hashlib.sha256("\0".join(more).encode())
    for path in sources():
        found.update(f"{path.relative_to(host.ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def builder(release: str) -> list[str | Path]:
    """Returns the command prefix that enters the build root of a release."""
    return roots.inside(None if release == this_release() else roots.get(release, FOR_PACKAGES))


def directory_of(release: str) -> Path:
    return DEBS if release == this_release() else DEBS.with_name(f"{DEBS.name}-{release}")


def make_packages(release: str = this_release(), news: str = "") -> list[Path]:
    """Builds the packages, unless packages of the same sources exist."""
    directory = directory_of(release)
    if news:
        directory = directory.with_name(f"{directory.name}-next")
    with host.locked(directory.name, host.BUILD):
        return find_or_make_packages(directory, release, news)


def find_or_make_packages(directory: Path, release: str, news: str) -> list[Path]:
    stamp = directory / "sources"
    now = digest(news)
    if not stamp.exists() or stamp.read_text() != now:
        host.progress(f"building the packages for Debian's {release}")
        tree = directory / "sysgenid"
        shutil.rmtree(directory, ignore_errors=True)
        for path in sources():
            copy = tree / path.relative_to(host.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        changelog = tree / "debian/changelog"
        changelog.write_text(news + changelog.read_text())
        host.run([*builder(release), "env", "-C", tree, "dpkg-buildpackage", "-us", "-uc", "-b"],
                 "building the packages")
        shutil.rmtree(tree)
        stamp.write_text(now)
    return sorted(path for path in directory.glob("*.deb") if "-dbgsym" not in path.name)


def make_next_packages(release: str = this_release()) -> list[Path]:
    """Builds the same packages as a later version, for tests of upgrades."""
    return make_packages(release, NEXT)


def lint_packages(release: str = this_release()) -> str:
    """Returns the output of that release's lintian; SetupError on errors and warnings."""
    return host.run([*builder(release), "lintian", "--allow-root", "--fail-on", "error,warning",
                     *directory_of(release).glob("*.changes")], "running lintian").strip()


def make_tar(name: str, included: tuple[str, ...], release: str = "bookworm") -> Path:
    """Returns a tar archive of a Debian of that release with these packages."""
    archive = Archive(release)
    tar = host.CACHE / f"{name}_{archive.key(included)}" / "root.tar"
    with host.locked(name):
        if not host.cached(tar.parent):
            packages.install(("mmdebstrap", "tar"))
            host.progress(f"making a Debian root of {release} (a few minutes)")
            for old in host.CACHE.glob(f"{name}_*"):
                shutil.rmtree(old)
            with host.making(tar.parent) as temporary:
                packages.as_root(["mmdebstrap", "--variant=minbase",
                                  "--dpkgopt=force-unsafe-io",
                                  f"--include={','.join(included)}", release,
                                  str(temporary / tar.name), *archive.sources()],
                                 "making a Debian")
    return tar


# The kernels that share a Debian root, by its release.
TOGETHER = {"bookworm": ("6.1-cloud", "6.12-cloud"), "trixie": ("6.12-trixie-cloud",)}


def release_for(kernel: Kernel) -> str:
    """Returns the Debian release of the kernel's guests."""
    return STOCK[kernel.name].debian if kernel.name in STOCK else "bookworm"


def kernels_with(kernel: Kernel) -> list[Kernel]:
    """Returns the kernels that share a Debian root with this kernel, and itself."""
    together = [stock(name) for name in TOGETHER[release_for(kernel)]]
    return together if kernel.name in STOCK else [*together, kernel]


def make_base(kernels: list[Kernel], *more: str) -> Path:
    """Returns the archive of a Debian with those kernels' headers, without our packages."""
    release = release_for(kernels[0])
    headers = (f"linux-headers-{kernel.release}" for kernel in kernels if kernel.name in STOCK)
    return make_tar("-".join(("debian", release, *more)), (*INCLUDED, *headers, *more), release)


INSTALL = r"""
set -e
root=$1/root
mkdir "$root"
tar -xpf "$2" -C "$root"
for modules in $4; do
	installed=$root/lib/modules/${modules##*/}
	mkdir -p "$installed"
	cp -a "$modules/kernel" "$modules"/modules.order "$modules"/modules.builtin* "$installed"
	# Packaged headers bring this link; a kernel that the tests build does not.
	[ -L "$installed/build" ] || cp -P "$modules/build" "$installed"
done
cp $3 "$root/tmp/"
echo 'exit 101' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
# DKMS otherwise builds only for the running kernel, which is the host's.
echo autoinstall_all_kernels=y >> "$root/etc/dkms/framework.conf"
mount -t proc proc "$root/proc"
mkdir -p "$root$6"
mount --bind "$6" "$root$6"
chroot "$root" sh -ec 'apt-get -q install -y --no-install-recommends /tmp/*.deb'
for modules in $4; do
	ls "$root/lib/modules/${modules##*/}/updates/dkms/"vm_generation_id.ko*
done
umount "$root/proc" "$root$6"
rm "$root/usr/sbin/policy-rc.d" "$root"/tmp/*.deb
tar -cf "$5" -C "$root" --exclude='./usr/src/linux-*' --exclude=./usr/lib/gcc --exclude=./var/cache .
"""


def make_root(kernels: list[Kernel]) -> Path:
    """Returns the archive of a Debian with our packages and DKMS's modules."""
    name = f"debian-root-{'-'.join(kernel.name for kernel in kernels)}"
    with host.locked(name, host.BUILD):
        return find_or_make_root(host.BUILD / name, kernels)


def find_or_make_root(root: Path, kernels: list[Kernel]) -> Path:
    debs = make_packages(release_for(kernels[0]))
    base = make_base(kernels)
    tar = root / f"{digest(str(base), *(kernel.release for kernel in kernels))}.tar"
    if not tar.exists():
        host.progress("installing the packages in a Debian root")
        shutil.rmtree(root, ignore_errors=True)
        with host.making(root) as temporary:
            modules = " ".join(str(kernel.modules) for kernel in kernels)
            try:
                packages.as_root(
                    ["unshare", "-m", "sh", "-c", INSTALL, "install", str(temporary), str(base),
                     " ".join(map(str, debs)), modules, str(temporary / tar.name), str(host.CACHE)],
                    "installing the packages in a Debian")
            finally:
                packages.as_root(["rm", "-rf", str(temporary / "root")], "tidying up")
    return tar


def add_member(image: Image, source: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
    """Copies a member of the archive, with its owner, into the image."""
    owner = (member.uid, member.gid)
    if member.isdir():
        image.add(name, 0o040000 | member.mode, owner=owner)
    elif member.issym():
        image.add(name, 0o120777, member.linkname.encode(), owner=owner)
    elif member.isfile() or member.islnk():
        image.add(name, 0o100000 | member.mode, source.extractfile(member).read(), owner=owner)


def make_image(kernel: Kernel, kernels: list[Kernel], files: dict[str, str | Path]) -> Path:
    """Writes the Debian root and the given files into an initramfs."""
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
    image.file("agent", build.agent())
    image.link("init", "/lib/systemd/systemd")
    return image.write(host.BUILD / f"debian-{kernel.name}.cpio")


def main() -> None:
    packages.install(FOR_PACKAGES)
    for path in make_packages():
        print(path.relative_to(host.ROOT))
    if said := lint_packages():
        host.progress(said)


if __name__ == "__main__":
    host.main(main)
