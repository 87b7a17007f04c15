# SPDX-License-Identifier: GPL-2.0
"""Guests with CRIU, Podman and our plugin for CRIU, in a Debian on a disk."""
from pathlib import Path

from harness import build, debian_disk, host, roots, userspace
from harness.kernels import Kernel

# The Debian of each kernel's guests, and what has the headers of its CRIU.
RELEASES = {"6.1-cloud": "bookworm"}
HEADERS = {"bookworm": "criu"}
INCLUDED = (*userspace.INCLUDED, "dbus", "libgcrypt20", "criu", "iproute2", "podman", "runc")
# CRIU asks these about sockets, and tries whether the kernel has the others.
FOR_CRIU = ("unix_diag", "tcp_diag", "udp_diag", "raw_diag", "inet_diag", "netlink_diag",
            "af_packet_diag", "nf_tables", "veth", "tun")
PLUGIN = "usr/lib/criu/sysgenid.so"


def make_root(kernel: Kernel) -> Path:
    """The Debian for the kernel's guests, as a file system to read."""
    release = RELEASES[kernel.name]
    return debian_disk.make_root(f"containers-{release}", INCLUDED, release)


def make_plugin(release: str) -> Path:
    """Builds the plugin where that release's CRIU has its headers."""
    output = host.BUILD / f"criu-{release}"
    with host.locked(output.name, host.BUILD):
        output.mkdir(exist_ok=True)
        host.run([*roots.inside(roots.get(release, (HEADERS[release],))), "make", "-s", "-C",
                  host.ROOT / "tools/criu", f"OUTPUT={output}", "CFLAGS=-O2 -Werror"],
                 "building the plugin for CRIU")
    return output / "sysgenid.so"


def make_image(kernel: Kernel, path: Path) -> Path:
    """The initramfs that mounts the Debian, with our modules, plugin and programs."""
    built = build.programs_directory(kernel)
    return debian_disk.make_image(kernel, path, {
        PLUGIN: make_plugin(RELEASES[kernel.name]),
        "test/use_until_restored": built / build.GUEST.name / "use_until_restored",
        "test/example-prng": built / "libsysgenid/example-prng",
        "usr/bin/busybox": kernel.busybox,
    }, (*debian_disk.DRIVERS, *FOR_CRIU))
