# SPDX-License-Identifier: GPL-2.0
"""The kernels that the guests run: the stock kernels of Debian's archive.

Their packages are unpacked into the cache, not installed. The archive is asked for
newer ones once a day. Run as a program, it fetches the kernels named.
"""
import functools
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import archive, host, packages, roots
from harness.archive import Archive


@dataclass(frozen=True)
class Stock:
    """A stock kernel: the newest, or oldest, in a suite whose release matches."""
    suite: str
    release: str
    oldest: bool = False
    architecture: str = "amd64"
    memory: int = 160  # MiB

    @property
    def archive(self) -> Archive:
        return Archive(self.suite, self.architecture)

    @property
    def debian(self) -> str:
        """The Debian release that the kernel is for."""
        return self.suite.removesuffix("-backports")


STOCK = {
    "6.1-cloud": Stock("bookworm", r"6\.1\.\d+-\d+-cloud-amd64"),
    "6.1": Stock("bookworm", r"6\.1\.\d+-\d+-amd64"),
    "6.12-cloud": Stock("bookworm", r"6\.12\.\d+\+deb12[\d.]*-cloud-amd64"),
    "6.1-oldest": Stock("bookworm", r"6\.1\.\d+-\d+-cloud-amd64", oldest=True),
    "6.1-rt": Stock("bookworm", r"6\.1\.\d+-\d+-rt-amd64", memory=256),
    "6.12-trixie-cloud": Stock("trixie", r"6\.12\.\d+\+deb13[\d.]*-cloud-amd64"),
    "6.12-trixie-rt": Stock("trixie", r"6\.12\.\d+\+deb13[\d.]*-rt-amd64", memory=256),
    "backports-cloud": Stock("trixie-backports", r"[\d.]+\+deb13[\d.]*-cloud-amd64"),
    "backports-rt": Stock("trixie-backports", r"[\d.]+\+deb13[\d.]*-rt-amd64", memory=256),
    "6.1-arm64": Stock("bookworm", r"6\.1\.\d+-\d+-cloud-arm64", architecture="arm64", memory=512),
    "6.12-trixie-arm64": Stock("trixie", r"6\.12\.\d+\+deb13[\d.]*-cloud-arm64",
                               architecture="arm64", memory=512),
}
# Every test runs with FULL; a test marked every_kernel runs with MORE, too. The most
# important of these run with SHORT in make check.
FULL = ("6.1-cloud", "6.1", "6.12-cloud")
SHORT = ("6.1-oldest", "6.12-trixie-cloud", "6.12-trixie-rt", "backports-cloud", "backports-rt")
MORE = (*SHORT, "6.1-rt", "6.1-arm64", "6.12-trixie-arm64")
# Kernels of another architecture need a cross compiler, and their guests a shell.
CROSS = {"arm64": ("aarch64-linux-gnu", ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"))}
FOREIGN_PACKAGES = ("busybox-static",)
# The path of a kernel's image in each package that may have it.
IMAGES = {"linux-image-{}-unsigned": "boot/vmlinuz-{}",
          "linux-binary-{}": "usr/lib/modules/{}/vmlinuz"}
SOURCE, NEWEST_SOURCE = "linux-source-6.12", "linux-source-newest"
# Each is the newest package of a suite whose name matches.
SOURCES = {
    SOURCE: ("bookworm", r"linux-source-6\.12"),
    NEWEST_SOURCE: ("trixie-backports", r"linux-source-[\d.]+"),
}
# These files of SOURCE are unpacked: kselftest's harness and the checkers.
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
    """A kernel to boot, and how to build modules for it.

    append, memory and patience are the defaults of its guests. last_check runs when a
    guest is closed. Its output is added to the guest's log and scanned there.
    """
    name: str
    release: str
    image: Path
    build_tree: Path
    architecture: str = "amd64"
    modules: Path | None = None     # the kernel's own lib/modules/RELEASE
    root: Path | None = None        # the root to build modules in: see roots.py
    busybox: Path = Path("/bin/busybox")
    append: str = ""                # to the kernel's command line
    memory: int = 160               # MiB
    patience: float = 1             # a factor for a stock kernel's time limits
    last_check: str = ""            # a shell command
    make_flags: tuple[str, ...] = ()    # for building modules
    counts_lines: bool = False      # make_flags enable gcov
    built_in: bool = False          # the drivers are part of it, not modules

    @property
    def cross(self) -> str:
        """The prefix of the cross compiler's name; empty for this machine's compiler."""
        return f"{CROSS[self.architecture][0]}-" if self.architecture in CROSS else ""

    def setting(self, name: str) -> str:
        """Returns the value of CONFIG_name; empty if it is not set."""
        text = (self.build_tree / ".config").read_text(encoding="utf-8")
        found = re.search(rf"^CONFIG_{name}=(.*)$", text, re.M)
        return found[1] if found else ""


def natural(text: str) -> list:
    """Returns a sort key that puts 6.1.0-9 before 6.1.0-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def find_stock(name: str) -> dict:
    """Finds a stock kernel and its packages in the archive."""
    stock = STOCK[name]
    names = stock.archive.names("linux-")
    releases = sorted({match[1] for match in (
        re.fullmatch(f"linux-headers-({stock.release})", offered) for offered in names) if match},
        key=natural, reverse=not stock.oldest)
    for release in releases:
        headers = f"linux-headers-{release}"
        image = [pattern.format(release) for pattern in IMAGES]
        modules = [f"linux-modules-{release}", f"linux-base-{release}"]  # since 7.2
        shown = stock.archive.shown(*{headers, *modules, *image}.intersection(names))
        if headers in shown and (image := [package for package in image if package in shown]):
            break
    else:
        raise host.SetupError(f"Debian's {stock.suite} offers no kernel {name}: the mirror in "
                              "/etc/apt/sources.list lacks linux-headers-"
                              f"{stock.release} with its image; name another mirror there")
    needs = re.findall(r"linux-(?:headers-[^ ,]+-common[^ ,]*|kbuild-[^ ,]+)",
                       shown[headers]["Depends"])
    kbuild = [package for package in needs if package.startswith("linux-kbuild-")]
    here = Archive(stock.suite).shown(*kbuild)
    depends = ", ".join(fields["Depends"] for fields in (
        shown[headers], *here.values()) if "Depends" in fields)
    tools = {depend.split()[0].partition(":")[0].removesuffix("-for-host")
             for depend in depends.split(", ")}
    tools = {tool for tool in tools if not re.match("linux-(headers|kbuild|base|image)", tool)}
    offered = [image[0], headers, *(package for package in modules if package in shown),
               *sorted(set(needs).difference(kbuild))]
    if stock.architecture in CROSS:
        prefix, compilers = CROSS[stock.architecture]
        tools = {f"{tool}-{prefix}" if re.fullmatch(r"gcc-\d+", tool) else tool for tool in tools}
        tools.update(compilers)
        offered += FOREIGN_PACKAGES
    return {"release": release, "version": shown[headers]["Version"], "packages": offered,
            "kbuild": kbuild, "tools": sorted(tools)}


def find_source(name: str) -> dict:
    suite, pattern = SOURCES[name]
    names = sorted((offered for offered in Archive(suite).names("linux-source-")
                    if re.fullmatch(pattern, offered)), key=natural, reverse=True)
    shown = Archive(suite).shown(*names)
    found = next((package for package in names if package in shown), None)
    if not found:
        raise host.SetupError(f"Debian's {suite} offers no package {pattern}: the mirror in "
                              "/etc/apt/sources.list lacks it; name another mirror")
    return {"release": found, "version": shown[found]["Version"], "packages": [found]}


def place(found: dict) -> Path:
    """Returns the cache directory of a set of packages."""
    key = hashlib.sha256(" ".join(found["packages"] + found.get("kbuild", [])).encode()).hexdigest()[:8]
    return host.CACHE / f"{found['release']}_{found['version'].replace(':', '-')}_{key}"


def unpack_kernel(debs: list[Path], directory: Path, release: str, final: Path) -> None:
    """Unpacks a kernel, and adjusts the paths in its headers to the cache."""
    for deb in debs:
        host.run(["dpkg-deb", "-x", deb, directory], f"unpacking {deb.name}")
        deb.unlink()
    makefile = directory / f"usr/src/linux-headers-{release}/Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{final}/usr/src/"))


def unpack_source(debs: list[Path], directory: Path) -> None:
    """Unpacks SOURCE_FILES beside the source's package, which stays."""
    inner = f"./usr/src/{SOURCE}.tar.xz"
    wanted = " ".join(f"{SOURCE}/{name}" for name in SOURCE_FILES)
    host.run(["sh", "-ec", f"dpkg-deb --fsys-tarfile {debs[0]} | tar -xO {inner} |"
              f" tar -xJ --strip-components=1 -C {directory} {wanted}"], f"unpacking {SOURCE}")


def fetch(name: str, found: dict, offered: Archive) -> None:
    """Downloads and unpacks the packages found, unless they are in the cache."""
    directory = place(found)
    with host.locked(name):
        if host.cached(directory):
            return
        host.progress(f"fetching {found['release']} ({found['version']})")
        with host.making(directory) as temporary:
            debs = offered.download(found["packages"], temporary)
            if name in STOCK:
                debs = Archive(offered.suite).download(found["kbuild"], temporary)
                unpack_kernel(debs, temporary, found["release"], directory)
            elif name == SOURCE:
                unpack_source(debs, temporary)


def fetched(name: str) -> tuple[dict, Path]:
    """Returns the description and the directory of a stock kernel, or of a source.

    The archive is asked once a day. On failure, the last one in the cache is used.
    """
    record = host.CACHE / f"found-{name}.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        age = time.time() - record.stat().st_mtime
        there = host.cached(place(known))
    except (OSError, ValueError):
        known, age, there = None, 0, False
    if not there or age > packages.DAY:
        offered = STOCK[name].archive if name in STOCK else Archive(SOURCES[name][0])
        try:
            offered.refresh()
            Archive(offered.suite).refresh()
            found = find_stock(name) if name in STOCK else find_source(name)
            fetch(name, found, offered)
            host.write_whole(record, json.dumps(found, indent=1))
            known = found
            host.drop_unused()
        except host.SetupError as error:
            if not there:
                raise
            host.progress(f"using {known['release']} of the cache: {error}")
    return known, place(known)


def stock(name: str) -> Kernel:
    found, directory = fetched(name)
    release, debian = found["release"], STOCK[name].debian
    architecture = STOCK[name].architecture
    images = (directory / image.format(release) for image in IMAGES.values())
    modules = (directory / where / release for where in ("lib/modules", "usr/lib/modules"))
    kernel = Kernel(name, release, next(image for image in images if image.exists()),
                    directory / f"usr/src/linux-headers-{release}", architecture,
                    memory=STOCK[name].memory,
                    modules=next(path for path in modules if (path / "modules.order").exists()))
    if architecture in CROSS or debian != archive.this_release():
        kernel = replace(kernel, root=roots.get(debian, tuple(found["tools"])))
    else:
        packages.install(tuple(found["tools"]))
    if architecture in CROSS:
        shell = (directory / where / "busybox" for where in ("bin", "usr/bin"))
        kernel = replace(kernel, busybox=next(path for path in shell if path.exists()),
                         make_flags=(f"ARCH={architecture}", f"CROSS_COMPILE={kernel.cross}"))
    return kernel


@functools.cache
def source() -> Path:
    """Returns the directory with SOURCE_FILES and the kernel source's package."""
    return fetched(SOURCE)[1]


def source_version() -> str:
    return fetched(SOURCE)[0]["version"]


# Each kernel's name, and the function that gets it.
PROVIDERS: dict[str, Callable[[str], Kernel]] = {name: stock for name in STOCK}


@functools.cache
def get(name: str) -> Kernel:
    if name not in PROVIDERS:
        raise host.SetupError(f"there is no kernel {name}: choose one of {', '.join(PROVIDERS)}")
    return PROVIDERS[name](name)


def main() -> None:
    for name in sys.argv[1:] or STOCK:
        kernel = get(name)
        print(f"{name:<12}{kernel.release:<32}{kernel.build_tree}")


if __name__ == "__main__":
    host.main(main)
