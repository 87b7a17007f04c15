# SPDX-License-Identifier: GPL-2.0
"""Reseed before publish: a program that sees a new generation never repeats draws.

Only the GUID makes the first draws of two clones differ here. The guests have neither
RDRAND nor RDSEED, and no seed. Constant bytes initialize the CSPRNG.
"""
import re
from dataclasses import dataclass
from typing import NoReturn

import pytest
from harness import build
from harness.acpi_events import interrupted_cpu, load_modules, mask_events, on_cpu
from harness.channel import Program
from harness.guest import BACKEND, Guest, Snapshot, new_guid

pytestmark = pytest.mark.every_kernel

PREDICTABLE = {
    "cpu_flags": "-rdrand,-rdseed",
    "append": "random.trust_cpu=off random.trust_bootloader=off",
}
# An initramfs without /dev, in which the modules are loaded before switch_root.
EARLY_INIT = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
insmod /modules/sysgenid.ko && insmod /modules/{BACKEND}.ko
mkdir /new && mount -t tmpfs new /new && cd /new && mkdir dev proc sys run test tmp
cp -a /bin /agent . && cp /test/draw_random test
mount -t devtmpfs devtmpfs dev && mount --move /proc proc && mount --move /sys sys
export PATH=/test:/bin
exec switch_root . /agent ${{AGENT_PORT:-/dev/ttyS1}}
"""
# A chroot with little more than the device.
MAKE_JAIL = """
mkdir -p /tmp/jail/dev /tmp/jail/etc
cp /bin/busybox /test/draw_random /tmp/jail
cp -a /dev/sysgenid /tmp/jail/dev
echo nobody:x:65534:65534::/:/ > /tmp/jail/etc/passwd
"""
IN_JAIL = "unshare -m chroot /tmp/jail /busybox su -s /draw_random nobody"


@dataclass
class Draws:
    """The draws in a new generation, and the number of draws before it."""
    number: int
    values: set[str]


def draws_of_clone(snap: Snapshot, program: Program, guid: str | None = None) -> Draws:
    """Restores a clone, and returns its first draws in the new generation."""
    with snap.restore(guid) as clone:
        copy = clone.program(program)
        assert copy.wait() == 0, copy.output
        return Draws(int(re.search(r"^seen (\d+)", copy.output, re.M)[1]),
                     set(re.findall(r"^drew (\w+)", copy.output, re.M)))


def draws_from(clone: Guest, program: Program, number: int) -> set[str]:
    """Returns 64 draws of a clone without a new generation, from that number on."""
    copy = clone.program(program)
    shown = copy.output.count("shown")
    clone.run(f"echo {number} 64 > /run/ask")
    copy.wait_for(r"(^shown\n[^$]*){%d}" % (shown + 1))
    return set(re.findall(r"^drew (\w+)", copy.output.split("shown")[shown], re.M))


def start_drawing(guest: Guest, command: str) -> Program:
    """Starts a program that draws, and reads requests of draws_from() from /run/ask."""
    guest.run("rm -f /run/ask; mkfifo /run/ask")
    program = guest.start(f"{command} <> /run/ask")
    program.wait_for("^(drawing|none)")
    return program


def assert_clones_diverge(guest: Guest, program: Program) -> None:
    """Checks that draws in a new generation differ from other clones and from the old one."""
    with guest.snapshot() as snap:
        a, b = draws_of_clone(snap, program), draws_of_clone(snap, program)
        assert not a.values & b.values
        with snap.restore(snap.options.guid) as first, snap.restore(snap.options.guid) as second:
            for new in (a, b):
                c, d = (draws_from(clone, program, new.number) for clone in (first, second))
                assert c & d, "inconclusive: clones with the same GUID differ too"
                assert not new.values & (c | d)


def draws_of_like_clones(snap: Snapshot, program: Program) -> tuple[Draws, Draws]:
    """Returns two clones' draws, after checking that the GUID alone determines them."""
    guid = new_guid()
    a, again, b = (draws_of_clone(snap, program, guid) for guid in (guid, guid, new_guid()))
    assert a == again, "inconclusive: clones with the same GUID differ too"
    assert not a.values & b.values
    return a, b


@pytest.mark.built_in
@pytest.mark.parametrize("ready", [pytest.param("early", marks=pytest.mark.short), "late"])
def test_guid_alone_makes_clones_diverge(boot, ready):
    """With "late", the CSPRNG is seeded only after the restore, and the GUID is in that seed."""
    guest = boot(icount=True, **PREDICTABLE)
    load_modules(guest)
    program = start_drawing(guest, f"draw_random map {ready}")
    with guest.snapshot() as snap:
        clones = draws_of_like_clones(snap, program)
        if ready == "early":
            with snap.restore(snap.options.guid) as same:
                for new in clones:
                    assert not new.values & draws_from(same, program, new.number)


@pytest.mark.built_in
@pytest.mark.parametrize("way", ["map", "hardware", "read", "poll", "ioctl"])
def test_clones_diverge_on_other_cpu(boot, way):
    guest = boot(smp=2, **PREDICTABLE)
    load_modules(guest)
    command = on_cpu(1 - interrupted_cpu(guest), f"draw_random {way} early")
    assert_clones_diverge(guest, start_drawing(guest, command))


def skip_without_vdso(guest: Guest) -> NoReturn:
    """Skips the test of a kernel whose vDSO is configured without getrandom()."""
    assert not guest.options.kernel.setting("VDSO_GETRANDOM"), "the program does not find it"
    pytest.skip("this kernel's vDSO has no getrandom()")


@pytest.mark.built_in
@pytest.mark.short
def test_clones_diverge_in_vdso(boot):
    """The vDSO keeps a state of its own until the kernel's CSPRNG is reseeded."""
    guest = boot(**PREDICTABLE)
    load_modules(guest)
    program = start_drawing(guest, "draw_random map early vdso")
    if "none" in program.output:
        skip_without_vdso(guest)
    assert_clones_diverge(guest, program)


@pytest.mark.built_in
def test_unprivileged_call_in_jail_reseeds(boot):
    guest = boot(**PREDICTABLE)
    load_modules(guest)
    mask_events(guest)
    start_drawing(guest, "draw_random map early").kill()
    guest.run(MAKE_JAIL)
    with guest.snapshot() as loaded:
        for way in ("read", "poll", "ioctl"):
            guest = loaded.restore(loaded.options.guid)
            assert_clones_diverge(guest, start_drawing(guest, f"{IN_JAIL} {way} never"))


def test_clones_diverge_after_switch_root_without_dev(boot, kernel, logs):
    image = build.new_image(kernel)
    image.file("init", EARLY_INIT, 0o755)
    guest = boot(image=image.write(logs / "initramfs.cpio"), fresh=True, **PREDICTABLE)
    program = start_drawing(guest, "draw_random map early")
    guest.run("umount -l /dev && [ ! -e /dev/urandom ]")
    assert_clones_diverge(guest, program)
