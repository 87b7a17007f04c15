# SPDX-License-Identifier: GPL-2.0
"""The requirements of docs/specs/vmgenid.rst of QEMU, tested from inside the guest.

They are those of "Virtual Machine Generation ID", Microsoft, 2012. R1a to R1e are about
the memory that holds the GUID, R2 to R6 about the device in ACPI. Firmware allocates that
memory, so that each test runs with SeaBIOS and with OVMF.
"""
import re
from pathlib import Path

import pytest
from harness import acpi_tables
from harness.acpi_events import events, load_modules, mask_events, switch_looks_off
from harness.guest import Guest

pytestmark = [pytest.mark.hosts, pytest.mark.kernels("6.1-cloud")]

MACHINES = {"seabios": {}, "ovmf": {"machine": "q35",
                                    "firmware": Path("/usr/share/ovmf/OVMF.fd")}}
# The kernel prints the memory map of UEFI, and has devmem map reserved memory.
APPEND = "efi=debug iomem=relaxed"
PAGE = 4096
MIB = 1 << 20
MEMORY = 256
GUID_BYTES = 16
# The GUID's offset in QEMU's blob, which starts a page.
OFFSET = 40
MEMORY_TYPES = "/sys/kernel/debug/x86/pat_memtype_list"
# The entries of maps of the memory: the kernel's, those of the firmware, the mapped ones.
RESOURCE = r"^ *(?P<start>\w+)-(?P<end>\w+) : (?P<kind>.*)$"
E820 = r"^(?P<start>0x\w+) (?P<end>0x\w+) (?P<kind>.*)$"
UEFI = r"efi: mem\d+: \[(?P<kind>[^|]*?) *\|.*range=\[(?P<start>0x\w+)-(?P<end>0x\w+)\]"
MAPPING = r"\[mem (?P<start>0x\w+)-(?P<end>0x\w+)\] (?P<kind>\S+)"
# Bits of /proc/kpageflags: the kernel has no such page, or gives it to nobody.
NOT_USED = 1 << 20 | 1 << 32
# ObjectType() of ACPI 6.5, 19.6.97.
INTEGER, PACKAGE = 1, 4

# The answers of the guest's own ACPI interpreter about the device; ADDR is in Local0.
QUESTIONS = {
    "type": "Return (ObjectType (Local0))",
    "elements": "Return (SizeOf (Local0))",
    "type of low": "Return (ObjectType (Local0 [0]))",
    "type of high": "Return (ObjectType (Local0 [1]))",
    "low": "Return (DerefOf (Local0 [0]))",
    "high": "Return (DerefOf (Local0 [1]))",
    "_CID": 'Return (\\_SB.VGEN._CID == "VM_Gen_Counter")',
    "_DDN": 'Return (\\_SB.VGEN._DDN == "VM_Gen_Counter")',
    "is the rest of the page 0": f"""
        OperationRegion (PAGE, SystemMemory, \\VGIA, {PAGE})
        Field (PAGE, AnyAcc, NoLock, Preserve) {{ ALL, {8 * PAGE} }}
        Local1 = ALL
        Local2 = {OFFSET}
        While (Local2 < {OFFSET + GUID_BYTES}) {{ Local1 [Local2] = 0\nLocal2++ }}
        Return (Local1 == Buffer ({PAGE}) {{}})""",
    # Not questions: writes another GUID, and runs what the event runs, without an interrupt.
    "change": f"""
        OperationRegion (GUID, SystemMemory, \\VGIA + {OFFSET}, {GUID_BYTES})
        Field (GUID, DWordAcc, NoLock, Preserve) {{ WORD, 32 }}
        WORD = ~WORD
        Return (0)""",
    "event": "\\_GPE._E05 ()\nReturn (0)",
}
QUESTION = """
    Device (\\_SB.Q{number:03d}) {{
        Name (_HID, "TEST3{number:03d}")
        Method (_SUN, 0, Serialized) {{
            Local0 = \\_SB.VGEN.ADDR ()
            {body}
        }}
    }}
"""
OBJECTS = """
    External (\\VGIA, IntObj)
    External (\\_SB.VGEN.ADDR, MethodObj)
    External (\\_SB.VGEN._CID, StrObj)
    External (\\_SB.VGEN._DDN, StrObj)
    External (\\_GPE._E05, MethodObj)
"""


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("specification")
    asl = OBJECTS + "".join(QUESTION.format(number=number, body=body)
                            for number, body in enumerate(QUESTIONS.values()))
    return acpi_tables.archive(directory, acpi_tables.compiled(asl, directory))


@pytest.fixture(params=[pytest.param("seabios", marks=pytest.mark.short), "ovmf"])
def guest(request, boot, tables) -> Guest:
    return boot(acpi=tables, memory=MEMORY, append=APPEND, **MACHINES[request.param])


def ask(guest: Guest, question: str) -> int:
    number = list(QUESTIONS).index(question)
    return int(guest.run(f"cat /sys/bus/acpi/devices/TEST3{number:03d}:00/sun"))


def address(guest: Guest) -> int:
    """Returns where ADDR says that the GUID is."""
    return ask(guest, "low") | ask(guest, "high") << 32


def kinds_at(where: int, entry: str, text: str) -> set[str]:
    """Returns the kinds of the entries that cover the GUID, in a map of the memory."""
    return {found["kind"] for found in re.finditer(entry, text, re.M)
            if int(found["start"], 16) < where + GUID_BYTES and where <= int(found["end"], 16)}


def test_r1a_guid_is_aligned_to_8_bytes(guest):
    assert address(guest) % 8 == 0
    guest.load_modules()
    assert "not aligned" not in guest.log()


def test_r1b_guid_is_in_ram(guest):
    """It is where RAM is, and this memory keeps what is written."""
    where = address(guest)
    assert MIB <= where < MEMORY * MIB
    for value in ("0x12345678", "0x9ABCDEF0"):
        guest.run(f"devmem {where:#x} 32 {value}")
        assert guest.run(f"devmem {where:#x} 32") == f"{value}\n"


def test_r1c_page_is_not_the_operating_systems(guest):
    """Neither the kernel's memory nor another table of the firmware is in that page."""
    where = address(guest)
    flags = int(guest.run(f"dd if=/proc/kpageflags bs=8 skip={where // PAGE} count=1 2> /dev/null"
                          " | od -An -tu8"))
    assert flags & NOT_USED
    assert "System RAM" not in kinds_at(where, RESOURCE, guest.run("cat /proc/iomem"))
    assert where % PAGE == OFFSET
    assert ask(guest, "is the rest of the page 0")


def test_r1d_no_map_calls_it_ram_or_acpi_memory(guest):
    where = address(guest)
    given = guest.run("cd /sys/firmware/memmap && for i in *; do "
                      "echo $(cat $i/start $i/end $i/type); done")
    kinds = kinds_at(where, E820, given)
    assert kinds and kinds <= {"Reserved", "ACPI Non-volatile Storage"}
    if guest.options.firmware:
        kinds = kinds_at(where, UEFI, guest.run("dmesg"))
        assert kinds and kinds <= {"Reserved", "ACPI Mem NVS"}


def test_r1e_page_is_mapped_cacheable_and_no_other_way(guest):
    where = address(guest)
    uncached = f"devmem {where:#x} 32"
    assert guest.status(uncached) == 0, "inconclusive: this mapping is always refused"
    guest.load_modules()
    assert kinds_at(where, MAPPING, guest.run(f"cat {MEMORY_TYPES}")) == {"write-back"}
    assert guest.status(uncached) != 0


def test_r2_to_r5_device_has_its_objects(guest):
    assert ask(guest, "_CID") and ask(guest, "_DDN")
    assert (ask(guest, "type"), ask(guest, "elements")) == (PACKAGE, 2)
    assert (ask(guest, "type of low"), ask(guest, "type of high")) == (INTEGER, INTEGER)
    assert max(ask(guest, "low"), ask(guest, "high")) < 1 << 32


def test_r2_to_r5_a_new_guid_is_notified(guest):
    """The interrupt's method sends Notify 0x80; the driver ignores all other codes."""
    load_modules(guest)
    switch_looks_off(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1
        assert events(clone) == 1
        mask_events(clone)
        watcher = clone.start("wait_generation map")
        watcher.wait_for("^watching 1$")
        ask(clone, "change")
        assert watcher.status is None
        ask(clone, "event")
        watcher.wait_for("^woken 2$")


def test_r6_hardware_id_is_qemus(guest):
    assert guest.run("cat /sys/bus/acpi/devices/QEMUVGID:00/hid") == "QEMUVGID\n"
    assert guest.run("cat /sys/bus/acpi/devices/QEMUVGID:00/path") == "\\_SB_.VGEN\n"
