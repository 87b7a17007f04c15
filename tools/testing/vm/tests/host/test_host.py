# SPDX-License-Identifier: GPL-2.0
"""Debian 13 as the host: a fresh root with only make installed.

The root shares this machine's kernel, processes and /dev. The test therefore covers
neither the kernel and systemd of that host, nor KVM.
"""
import os
import shutil

import pytest
from harness import debian, host, packages

pytestmark = pytest.mark.debian

RELEASE = "trixie"
# The cache contains absolute paths, so it needs the same path inside.
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
    """Yields a function that runs a command in a fresh host with a copy of this checkout."""
    packages.install(debian.FOR_ROOT)
    root = host.BUILD / f"host-{RELEASE}"
    with host.locked(root.name, host.BUILD):
        packages.as_root(["rm", "-rf", str(root)], "tidying up")
        root.mkdir(parents=True)
        base = debian.make_tar(root.name, ("make",), RELEASE)
        packages.as_root(["tar", "-xpf", str(base), "-C", str(root)], "unpacking a Debian")
        for path in host.sources("."):
            copy = root / "sysgenid" / path.relative_to(host.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        proxies = [f"{name}={value}" for name, value in os.environ.items() if "proxy" in name.lower()]
        yield lambda *argv: packages.as_root(
            ["unshare", "-m", "sh", "-c", ENTER, "enter", str(root), str(host.CACHE), *proxies,
             *argv], f"{' '.join(argv)} in a fresh Debian {RELEASE}")
        packages.as_root(["rm", "-rf", str(root)], "tidying up")


@pytest.mark.timeout(3600)
def test_fresh_host_runs_demo_and_check(fresh):
    """Tests one kernel of the host's own release, and one of another release."""
    assert "Clone B" in fresh("make", "-C", "/sysgenid", "demo")
    fresh("make", "-C", "/sysgenid", "check", "JOBS=1", "PYTEST_ARGS=tests/driver/test_snapshot.py "
          "tests/driver/test_modules.py --kernel 6.1-cloud --kernel 6.12-trixie-cloud")


@pytest.mark.timeout(3600)
def test_make_docs(fresh):
    """With another Sphinx and another furo than Debian 12 has."""
    assert "build/docs/index.html" in fresh("make", "-C", "/sysgenid", "docs")
