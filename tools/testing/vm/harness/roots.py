# SPDX-License-Identifier: GPL-2.0
"""Roots of other Debian releases, to build with their compilers and C library.

A root holds only what a build needs, and stays unchanged. The checkout, the cache and
/tmp have the same paths inside.
"""
import os
import tempfile
from pathlib import Path

from harness import host, packages
from harness.archive import Archive

TOOLS = ("make", "gcc", "libc6-dev", "kmod", "sparse")
# Enters a root through a fresh root directory, so that the cached one stays unchanged.
ENTER = r"""
set -e
root=$1 new=$1/mnt
shift
mount -t tmpfs root "$new"
cp -P "$root/bin" "$root/sbin" "$root/lib" "$root/lib64" "$new"
bind() {
	mkdir -p "$new$2"
	mount --rbind "$1" "$new$2"
}
for dir in usr etc var; do
	bind "$root/$dir" "/$dir"
done
while [ "$1" != -- ]; do
	bind "$1" "$1"
	shift
done
shift
exec chroot "$new" "$@"
"""


def get(release: str, wanted: tuple[str, ...]) -> Path:
    """Returns a root of that release with TOOLS and the wanted packages."""
    included = (*TOOLS, *wanted)
    archive = Archive(release)
    root = host.CACHE / f"root-{release}_{archive.key(included)}"
    if host.cached(root):
        return root
    with host.locked(f"root-{release}"):
        if host.cached(root):
            return root
        packages.install(("mmdebstrap", "tar"))
        host.progress(f"making a root of Debian's {release} to build in (a minute)")
        with host.making(root) as temporary:
            tar = temporary / "root.tar"
            packages.as_root(["mmdebstrap", "--variant=essential",
                              "--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*",
                              "--dpkgopt=path-exclude=/usr/share/locale/*",
                              "--dpkgopt=path-exclude=/usr/share/doc/*",
                              f"--include={','.join(included)}", release, str(tar), *archive.sources()],
                             f"making a root of Debian's {release}")
            host.run(["tar", "-xf", tar, "--no-same-owner", "--exclude=./dev", "-C", temporary],
                     "unpacking the root")
            tar.unlink()
    return root


def inside(root: Path | None) -> list[str | Path]:
    """Returns the command prefix that enters a root; None stands for this machine."""
    if not root:
        return []
    own = ["--map-root-user"] if os.geteuid() else []
    shared = ("/dev", "/proc", tempfile.gettempdir(), host.ROOT, host.CACHE)
    return ["unshare", *own, "--mount", "sh", "-c", ENTER, "sh", root, *shared, "--"]
