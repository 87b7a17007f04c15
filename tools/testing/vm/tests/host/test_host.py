# SPDX-License-Identifier: GPL-2.0
"""Debian 13 as the host: a fresh one, in which nothing but make is installed.

It has this machine's kernel, processes and /dev, so that a kernel's or systemd's part
in it, and KVM, are not seen.
"""
import os
import shutil

import pytest
from harness import debian, host, packages

pytestmark = pytest.mark.debian

RELEASE = "trixie"
# The cache has paths in it, so that it is where it is here.
ENTER = r"""
set -e
root=$1 cache=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmp "$root/tmp"
mkdir -p "$root$cache"
mount --bind "$cache" "$root$cache"
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin HOME=/root SYSGENID_CACHE="$cache" "$@"
"""


@pytest.fixture(scope="module")
def fresh():
    """Gives a function that runs a command in the fresh host's copy of this checkout."""
    packages.install(debian.FOR_ROOT)
    root = host.BUILD / f"host-{RELEASE}"
    with host.locked(root.name, host.BUILD):
        packages.as_root(["rm", "-rf", str(root)], "tidying up")
        root.mkdir(parents=True)
        base = debian.make_tar(root.name, ("make",), RELEASE)
        packages.as_root(["tar", "-xpf", str(base), "-C", str(root)], "unpacking a Debian")
        for name in host.run(["git", "-C", host.ROOT, "ls-files", "-co", "--exclude-standard"],
                             "listing the sources").splitlines():
            if (host.ROOT / name).is_file():
                copy = root / "sysgenid" / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(host.ROOT / name, copy)
        proxies = [f"{name}={value}" for name, value in os.environ.items() if "proxy" in name.lower()]
        yield lambda *argv: packages.as_root(
            ["unshare", "-m", "sh", "-c", ENTER, "enter", str(root), str(host.CACHE), *proxies,
             *argv], f"{' '.join(argv)} in a fresh Debian {RELEASE}")
        packages.as_root(["rm", "-rf", str(root)], "tidying up")


@pytest.mark.timeout(3600)
def test_make_demo_and_make_check(fresh):
    """With a kernel of another release, built for in a root, and with one of its own."""
    assert "Clone B" in fresh("make", "-C", "/sysgenid", "demo")
    fresh("make", "-C", "/sysgenid", "check", "JOBS=1", "PYTEST_ARGS=tests/driver/test_snapshot.py "
          "tests/driver/test_modules.py --kernel 6.1-cloud --kernel 6.12-trixie-cloud")
