# SPDX-License-Identifier: GPL-2.0
"""Guests with sysgenid(8) and its overseer, without a distribution around."""
from pathlib import Path

import build
import host
from kernels import Kernel

HOOKS = "/etc/sysgenid/hooks.d"
SHIPPED_HOOKS = "/usr/share/sysgenid/hooks"
STATE_FOLDER = "/var/lib/sysgenid"
STATE = f"{STATE_FOLDER}/state"
OUTPUT = host.BUILD / "userspace"


def make_image(kernel: Kernel) -> Path:
    """The default image of that kernel's guests, and our programs."""
    image = build.folder(kernel) / "userspace.cpio"
    with host.locked("userspace", host.BUILD):
        host.run(["make", "-s", "-C", host.ROOT / "tools/sysgenid", f"OUTPUT={OUTPUT}",
                  f"LIBSYSGENID={OUTPUT}/lib/libsysgenid.a", "CFLAGS=-O2 -Wall -Wextra -Werror"],
                 "building sysgenid(8) and sysgenidd(8)")
        contents = build.new_image(kernel)
        for name in ("sysgenid", "sysgenidd"):
            contents.program(f"sbin/{name}", OUTPUT / name)
        contents.tree(SHIPPED_HOOKS, host.ROOT / "tools/sysgenid/hooks")
        contents.file("etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        contents.file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        return contents.write(image)
