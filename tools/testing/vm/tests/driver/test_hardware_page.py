# SPDX-License-Identifier: GPL-2.0
"""The mapped page of the hardware's GUID: its content, its lifetime, its memory type.

hardware_test.c tests what its system calls accept and refuse.
"""
import re
import uuid

import pytest
from harness import acpi_tables, kernels
from harness.acpi_events import load_modules, mask_events, on_cpu
from harness.channel import Program
from harness.guest import BACKEND, Guest, new_guid
from test_bind_unbind import OURS

# The GUID's offset in its page, under QEMU.
QEMU_OFFSET = 40
RESERVED = 0x6000000
PAGE = 4096
MEMORY_TYPES = "/sys/kernel/debug/x86/pat_memtype_list"
LEAVE = {"unloaded": f"rmmod {BACKEND}",
         "unbound": f"cd {OURS}; for i in */driver; do echo $(dirname $i) > unbind; done"}


def in_memory(guid: str) -> str:
    """Returns the GUID's 16 bytes, in hex, as the hypervisor writes them to memory."""
    return uuid.UUID(guid).bytes_le.hex()


def start_mapping(guest: Guest) -> Program:
    """Starts a program that maps the page and prints the GUID for each line of /run/ask."""
    guest.run("mkfifo /run/ask")
    program = guest.start("map_hardware <> /run/ask")
    program.wait_for("^at ")
    return program


def shown(guest: Guest, program: Program) -> str:
    copy = guest.program(program)
    before = copy.output.count("now")
    guest.run("echo > /run/ask")
    return copy.wait_for(r"(?:now (\w+)\s+){%d}" % (before + 1))[1]


def test_page_shows_guid_of_each_clone(guest):
    guest.load_modules()
    program = start_mapping(guest)
    assert program.output == f"at {QEMU_OFFSET} {in_memory(guest.options.guid)}\n"
    with guest.snapshot() as snap, snap.restore() as clone:
        assert shown(clone, program) == in_memory(clone.options.guid)


@pytest.mark.parametrize("leave", LEAVE)
def test_page_stays_mapped_without_driver(guest, leave):
    guest.load_modules()
    program = start_mapping(guest)
    guest.run(LEAVE[leave])
    assert guest.run("map_hardware || true").split() == ["mmap:", "ENODEV", "ioctl:", "ENODEV"]
    assert shown(guest, program) == in_memory(guest.options.guid)
    with guest.snapshot() as snap, snap.restore() as clone:
        assert shown(clone, program) == in_memory(clone.options.guid)
        program = clone.program(program)
        program.kill()
        program.wait()
        clone.run("rmmod sysgenid" if leave == "unloaded" else f"rmmod {BACKEND} sysgenid")


def test_page_is_mapped_cacheable(guest):
    """The device's specification forbids an uncached mapping."""
    guest.load_modules()
    start_mapping(guest)
    if guest.status(f"[ -e {MEMORY_TYPES} ]"):
        pytest.skip("this kernel does not show memory types")
    guid = acpi_tables.find_guid(acpi_tables.dump(guest, "SSDT"))
    types = [kind for start, end, kind in re.findall(
        r"\[mem 0x(\w+)-0x(\w+)\] (\S+)", guest.run(f"cat {MEMORY_TYPES}"))
             if int(start, 16) <= guid < int(end, 16)]
    assert types and set(types) == {"write-back"}


@pytest.mark.kernels(*kernels.STOCK)
@pytest.mark.parametrize("offset, refused", [
    (0, False), (PAGE - 16, False), (PAGE - 8, True), (PAGE - 1, True)])
def test_page_with_partial_guid_is_refused(boot, tmp_path, offset, refused):
    address = RESERVED + offset
    table = acpi_tables.compiled(f"""
        Device (\\_SB.GENI) {{
            Name (_HID, "VMGENCTR")
            Name (ADDR, Package (2) {{ {address:#x}, 0 }})
        }}""", tmp_path)
    guest = boot(acpi=acpi_tables.archive(tmp_path, table), guid=None, fresh=True,
                 append=f"memmap=8K${RESERVED:#x}")
    guest.load_modules()
    assert guest.run("cat /sys/class/misc/sysgenid/source") == "vmgenid\n"
    said = guest.run("map_hardware < /dev/null || true")
    if refused:
        assert said.split() == ["mmap:", "ENODEV", "ioctl:", "ENODEV"]
    else:
        assert re.fullmatch(rf"at {offset} \w{{32}}\n", said)


@pytest.mark.parametrize("event", ["event", "masked"])
@pytest.mark.parametrize("busy", [0, 4], ids=["idle", "busy"])
@pytest.mark.parametrize("restores", [4, pytest.param(100, marks=pytest.mark.long)])
def test_inline_comparison_is_never_stale_on_any_cpu(boot, busy, event, restores):
    """A program on each CPU compares the mapped GUID; on a difference, it asks the kernel."""
    guest = boot(smp=4)
    load_modules(guest)
    if event == "masked":
        mask_events(guest)
    for _ in range(busy):
        guest.start("while :; do :; done")
    watchers = [guest.start(on_cpu(cpu, "stale_window hardware")) for cpu in range(4)]
    for watcher in watchers:
        watcher.wait_for("^watching")
    stale = []
    with guest.snapshot() as snap:
        for _ in range(0, restores, 2):
            with snap.restore_all(new_guid(), new_guid()) as clones:
                stale += [clone.program(watcher).wait_for(r"^stale (\d+)", 60)[1]
                          for clone in clones for watcher in watchers]
    assert stale == ["0"] * 4 * restores
