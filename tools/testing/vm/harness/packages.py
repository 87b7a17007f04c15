# SPDX-License-Identifier: GPL-2.0
"""The Debian packages that the tests and tools need, and their installation.

Run as a program, it installs the missing ones; with the argument `hosts`, those of
make check-hosts, too. With `no-guests`, it installs only those of make check-host. Tests
install what few of them need.
"""
import os
import subprocess
import sys
import time
from pathlib import Path

from harness import host

DEMO = (
    # guests
    "qemu-system-x86", "busybox-static", "kmod",
    # modules; kernels.py finds what a kernel's own tools need beside this
    "make", "gcc", "libc6-dev",
    # programs for the guests
    "linux-libc-dev",
    # unpacking
    "xz-utils", "tar",
)
# tests without a guest
TESTS = ("python3-pytest", "python3-pytest-xdist", "python3-pytest-timeout", "xz-utils", "tar")
NEEDED = DEMO + TESTS + (
    # programs for the guests, 32-bit ones too
    "gcc-multilib", "libsystemd-dev", "libjson-c-dev", "libgcrypt20-dev",
)
# the documentation's site; an unpacked kernel source has the rest
DOCS = ("python3-sphinx", "furo", "graphviz", "pandoc", "perl", "xz-utils", "tar")
# plots; make fleet
PLOTS = ("python3-matplotlib",)
FLEET = PLOTS + ("python3-tqdm",)
# make check-hosts only
HOSTS = (
    "libvirt-daemon", "libvirt-clients", "libxml2-utils", "python3-libvirt", "qemu-utils",
    "ovmf",
)
LISTS = Path("/var/lib/apt/lists")
DAY = 24 * 3600


def installed(packages: tuple[str, ...]) -> set[str]:
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *packages],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return {line.split()[1] for line in shown.splitlines() if line.startswith("installed ")}


def as_root(argv: list[str], doing: str) -> str:
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() == 0:
        return host.run([*environment, *argv], doing)
    sudo = ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    try:
        return host.run([*sudo, *environment, *argv], doing)
    except host.SetupError as error:
        if "not installed" not in str(error) and "password" not in str(error):
            raise
        raise host.SetupError(f"{doing} needs root: run `{' '.join(argv)}` as root, "
                              "then repeat this command") from None


def lists_age() -> float:
    """Returns the age of apt's package lists in seconds; infinite without lists."""
    found = [entry.stat().st_mtime for entry in (LISTS, LISTS / "partial") if entry.exists()]
    if not any(LISTS.glob("*_Packages*")):
        return float("inf")
    return time.time() - max(found)


def refresh_lists() -> None:
    host.progress("fetching apt's package lists")
    as_root(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"],
            "fetching apt's package lists")


def ensure_lists() -> None:
    """Fetches apt's package lists if there are none."""
    with host.locked("apt"):
        if lists_age() == float("inf"):
            refresh_lists()


def install(packages: tuple[str, ...] = NEEDED) -> None:
    """Installs the missing ones of the given packages."""
    missing = [name for name in packages if name not in installed(packages)]
    if not missing:
        return
    if not Path("/usr/bin/apt-get").exists():
        raise host.SetupError("this is not Debian: install the equivalents of "
                              f"{', '.join(missing)} by hand")
    with host.locked("apt"):
        if lists_age() > DAY:
            refresh_lists()
        host.progress(f"installing {' '.join(missing)}")
        as_root(["apt-get", "-q", "install", "-y", "--no-install-recommends",
                 "-o", "DPkg::Lock::Timeout=300", *missing], f"installing {' '.join(missing)}")


if __name__ == "__main__":
    chosen = {"hosts": NEEDED + HOSTS, "no-guests": TESTS}
    host.main(lambda: install(chosen[sys.argv[1]] if sys.argv[1:] else NEEDED))
