# SPDX-License-Identifier: GPL-2.0
"""ACPI tables for guests: compiled by iasl, put before the initramfs.

Such a table replaces the firmware's table with the same OEM ids and a lower
revision. Without such a table in the firmware, it is added.
"""
import re
import struct
from pathlib import Path

from harness import host, packages
from harness.guest import Guest
from harness.initramfs import Image

ARCHIVE = "tables.cpio"
# The OEM ids of QEMU's table that describes its generation ID.
QEMU_OEM = ("BOCHS ", "VMGENID")
# A Generic Event Device (ACPI 6.5, 5.6.9) reports the event of QEMU's generation ID
# on a machine without an SCI. There, firmware enables the event's bit and clears it.
# The registers are those of QEMU's GPE block 0, at 0xafe0 on the machine "pc"
# (hw/acpi/piix4.c). The event is its bit 5. Interrupt 9 would otherwise be the SCI.
EVENT_DEVICE = """
    External (\\_SB.VGEN, DeviceObj)
    Device (\\_SB.GED0) {
        Name (_HID, "ACPI0013")
        Name (_CRS, ResourceTemplate () {
            Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 9 }
        })
        OperationRegion (GPE0, SystemIO, 0xAFE0, 4)
        Field (GPE0, ByteAcc, NoLock, Preserve) { STS0, 8, STS1, 8, ENA0, 8, ENA1, 8 }
        Method (_INI) { ENA0 = 0x20 }
        Method (_EVT, 1, Serialized) {
            STS0 = 0x20
            Notify (\\_SB.VGEN, 0x80)
        }
    }
    Device (\\_SB.MASK) {
        Name (_HID, "TEST2001")
        Method (_SUN) { \\_SB.GED0.ENA0 = 0\nReturn (0) }
    }"""
# This command masks the event in a guest with EVENT_DEVICE.
MASK_EVENT = "cat /sys/bus/acpi/devices/TEST2001:00/sun"
# Reading the attribute "sun" of this device has firmware notify the driver of QEMU's
# generation ID, without an interrupt.
NOTIFIER = """
    External (\\_SB.VGEN, DeviceObj)
    Device (\\_SB.NTFY) {
        Name (_HID, "TEST2000")
        Method (_SUN) { Notify (\\_SB.VGEN, 0x80)\nReturn (0) }
    }"""
NOTIFY = "cat /sys/bus/acpi/devices/TEST2000:00/sun"
# The offset of the flags in the table "FACP", and one flag (ACPI 6.5, 5.2.9).
FADT_FLAGS = 112
HW_REDUCED = 1 << 20

# A generation ID in reserved memory, which the test modules may write. KEEP_WRITABLE
# reserves that memory on the kernel's command line.
WRITABLE_ADDRESS = 0x6000000
WRITABLE_DEVICE = f"""
    Device (\\_SB.GENI) {{
        Name (_HID, "VMGENCTR")
        Name (ADDR, Package (2) {{ {WRITABLE_ADDRESS:#x}, 0 }})
    }}"""
KEEP_WRITABLE = f"memmap=4K${WRITABLE_ADDRESS:#x}"


def compiled(asl: str, directory: Path, oem: tuple[str, str] = ("TESTS ", "FIRMWARE")) -> bytes:
    """Compiles ASL into an SSDT."""
    packages.install(("acpica-tools",))
    source = directory / "table.asl"
    source.write_text(f'DefinitionBlock ("", "SSDT", 2, "{oem[0]}", "{oem[1]}", 2)\n'
                      f"{{\n{asl}\n}}\n", encoding="utf-8")
    # -f: iasl rejects what broken firmware does, and the tests need that.
    host.run(["iasl", "-f", "-vs", "-p", source.with_suffix(""), source], "compiling ACPI tables")
    return source.with_suffix(".aml").read_bytes()


def archive(directory: Path, *tables: bytes) -> Path:
    """Writes the tables into a cpio archive for Options.acpi."""
    image = Image()
    for number, table in enumerate(tables):
        image.file(f"kernel/firmware/acpi/{number}.aml", table)
    return image.write(directory / ARCHIVE)


def with_revision(table: bytes, revision: int) -> bytes:
    """Returns the table with another revision; it replaces the original."""
    return newer(table[:8] + bytes([revision]) + table[9:])


def hardware_reduced(fadt: bytes) -> bytes:
    """Returns the "FACP" table for a machine without an SCI; it replaces the original."""
    flags = struct.unpack_from("<I", fadt, FADT_FLAGS)[0] | HW_REDUCED
    return newer(fadt[:FADT_FLAGS] + struct.pack("<I", flags) + fadt[FADT_FLAGS + 4:])


def newer(table: bytes) -> bytes:
    """Raises a table's OEM revision, so that the kernel prefers it to the original."""
    changed = bytearray(table)
    oem_revision = struct.unpack_from("<I", changed, 24)[0]
    struct.pack_into("<I", changed, 24, oem_revision + 1)
    changed[9] = 0
    changed[9] = -sum(changed) % 256
    return bytes(changed)


def dump(guest: Guest, name: str) -> bytes:
    """Reads a guest's ACPI table; a pattern reads all matching tables, concatenated."""
    return bytes.fromhex(guest.run(f"cat /sys/firmware/acpi/tables/{name} | od -An -v -tx1"))


def find_guid(ssdt: bytes) -> int:
    """Finds the physical address of the GUID in QEMU's own table."""
    match = re.search(rb"VGIA\x0c(....)", ssdt, re.S)
    return int.from_bytes(match[1], "little") + 40
