# SPDX-License-Identifier: GPL-2.0
"""The kernels that the guests run: stock ones as Debian's apt offers them.

Nothing is installed: packages are unpacked into the cache, by release and
version, and looked for anew once a day. As a program: fetches those named.
"""
import functools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import host
import packages

STOCK = {
    "6.1-cloud": r"6\.1\.\d+-\d+-cloud-amd64",
    "6.1": r"6\.1\.\d+-\d+-amd64",
    "6.12-cloud": r"6\.12\.\d+(\+deb12)?-cloud-amd64",
}
SOURCE = "linux-source-6.12"
# What is unpacked of the source: the tests' harness and the style checker.
SOURCE_FILES = (
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/kselftest.h",
    "scripts/checkpatch.pl",
    "scripts/spelling.txt",
    "scripts/const_structs.checkpatch",
    "scripts/kernel-doc",
)


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot, and what it takes to build modules for it.

    modules is its own lib/modules/RELEASE, if it has one. append, memory (in
    MiB) and patience (how many times a stock kernel's time limits it needs)
    are its guests' defaults. last_check is a shell command for the end of a
    guest's life; what it prints goes to the guest's log, and is judged there.
    make_flags are for building modules; counts_lines: gcov is among them.
    """
    name: str
    release: str
    image: Path
    build_tree: Path
    modules: Path | None = None
    append: str = ""
    memory: int = 160
    patience: float = 1
    last_check: str = ""
    make_flags: tuple[str, ...] = ()
    counts_lines: bool = False


def natural(text: str) -> list:
    """A sort key by which 6.1.0-9 comes before 6.1.0-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def apt_cache(*argv: str) -> str:
    return host.run(["apt-cache", *argv], "asking apt for its packages")


def shown(package: str) -> dict[str, str]:
    """The fields of a package's newest version; empty: apt doesn't offer it."""
    done = subprocess.run(["apt-cache", "show", "--no-all-versions", package],
                          capture_output=True, text=True, check=False)
    return dict(re.findall(r"^([\w-]+): (.*)$", done.stdout, re.M))


def find_stock(name: str) -> dict:
    """The newest kernel of that name that apt offers, and its packages."""
    offered = re.findall(rf"^linux-image-({STOCK[name]})-unsigned$",
                         apt_cache("pkgnames", "linux-image-6."), re.M)
    releases = sorted({match[0] if isinstance(match, tuple) else match for match in offered},
                      key=natural, reverse=True)
    releases = [release for release in releases if shown(f"linux-image-{release}-unsigned")]
    if not releases:
        raise host.Trouble(f"apt offers no kernel {name}, a package linux-image-{STOCK[name]}"
                           "-unsigned: /etc/apt needs Debian 12 and its security updates")
    image = f"linux-image-{releases[0]}-unsigned"
    headers = shown(f"linux-headers-{releases[0]}")
    if not headers:
        raise host.Trouble(f"apt offers {image} without linux-headers-{releases[0]}: "
                           "its lists are out of date, run `apt-get update` as root")
    needs = re.findall(r"linux-(?:headers-[^ ,]+-common|kbuild-[^ ,]+)", headers["Depends"])
    return {"release": releases[0], "version": shown(image)["Version"],
            "packages": [image, f"linux-headers-{releases[0]}", *sorted(set(needs))]}


def find_source(name: str) -> dict:
    found = shown(name)
    if not found:
        raise host.Trouble(f"apt offers no {name}: /etc/apt needs Debian 12's security updates")
    return {"release": name, "version": found["Version"], "packages": [name]}


def find(name: str) -> dict:
    """What apt offers now, by lists that are at most a day old."""
    with host.locked("apt"):
        if packages.lists_age() > packages.DAY:
            packages.refresh_lists()
    return find_stock(name) if name in STOCK else find_source(name)


def place(found: dict) -> Path:
    return host.CACHE / f"{found['release']}_{found['version'].replace(':', '-')}"


def download(names: list[str], folder: Path) -> list[Path]:
    """Fetches packages into a folder, without installing them."""
    host.run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", *names],
             f"fetching {' '.join(names)}", cwd=folder)
    return sorted(folder.glob("*.deb"))


def unpack_kernel(debs: list[Path], folder: Path, release: str, final: Path) -> None:
    """Unpacks a kernel and makes its headers usable from where they are."""
    for deb in debs:
        host.run(["dpkg-deb", "-x", deb, folder], f"unpacking {deb.name}")
        deb.unlink()
    makefile = folder / f"usr/src/linux-headers-{release}/Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{final}/usr/src/"))
    for name in ("build", "source"):
        link = folder / f"lib/modules/{release}" / name
        if link.is_symlink():
            target = link.readlink()
            link.unlink()
            link.symlink_to(Path("../../..") / target.relative_to("/"))


def unpack_source(debs: list[Path], folder: Path) -> None:
    """Keeps the source's package, and unpacks SOURCE_FILES beside it."""
    inner = f"./usr/src/{SOURCE}.tar.xz"
    wanted = " ".join(f"{SOURCE}/{name}" for name in SOURCE_FILES)
    host.run(["sh", "-ec", f"dpkg-deb --fsys-tarfile {debs[0]} | tar -xO {inner} |"
              f" tar -xJ --strip-components=1 -C {folder} {wanted}"], f"unpacking {SOURCE}")


def fetch(name: str, found: dict) -> None:
    """Makes sure that what find() has found is in the cache."""
    folder = place(found)
    with host.locked(name):
        if folder.exists():
            return
        host.progress(f"fetching {found['release']} ({found['version']})")
        with host.making(folder) as temporary:
            debs = download(found["packages"], temporary)
            if name in STOCK:
                unpack_kernel(debs, temporary, found["release"], folder)
            else:
                unpack_source(debs, temporary)


def fetched(name: str) -> tuple[dict, Path]:
    """The newest of a stock kernel, or of the source, as of today.

    apt is asked once a day. If that fails, or fetching, the last one serves.
    """
    record = host.CACHE / f"newest-{name}.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        age = time.time() - record.stat().st_mtime
        there = place(known).exists()
    except (OSError, ValueError):
        known, age, there = None, 0, False
    if not there or age > packages.DAY:
        try:
            found = find(name)
            fetch(name, found)
            host.write_whole(record, json.dumps(found, indent=1))
            known = found
        except host.Trouble as trouble:
            if not there:
                raise
            host.progress(f"keeping to {known['release']}, as {trouble}")
    return known, place(known)


def stock(name: str) -> Kernel:
    found, folder = fetched(name)
    release = found["release"]
    return Kernel(name, release, folder / f"boot/vmlinuz-{release}",
                  folder / f"usr/src/linux-headers-{release}", folder / f"lib/modules/{release}")


@functools.cache
def source() -> Path:
    """The folder with SOURCE_FILES of the kernel's source, and its package."""
    return fetched(SOURCE)[1]


# How to get each kernel that there is, by name.
PROVIDERS: dict[str, Callable[[str], Kernel]] = {name: stock for name in STOCK}


@functools.cache
def get(name: str) -> Kernel:
    if name not in PROVIDERS:
        raise host.Trouble(f"there is no kernel {name}: choose of {', '.join(PROVIDERS)}")
    return PROVIDERS[name](name)


def main() -> None:
    packages.install()
    for name in sys.argv[1:] or STOCK:
        kernel = get(name)
        print(f"{name:<12}{kernel.release:<32}{kernel.build_tree}")


if __name__ == "__main__":
    host.main(main)
