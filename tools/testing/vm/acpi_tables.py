# SPDX-License-Identifier: GPL-2.0
"""ACPI tables for guests: compiled by iasl, put before the initramfs.

The kernel takes such a table instead of firmware's, if that has the same OEM
ids and a lower revision, or else in addition to firmware's.
"""
import re
import struct
from pathlib import Path

import host
from initramfs import Image

# What QEMU calls the table that describes its generation ID.
QEMU_OEM = ("BOCHS ", "VMGENID")
# Of the table "FACP", in ACPI 6.5, 5.2.9: where its flags are, and one of them.
FADT_FLAGS = 112
HW_REDUCED = 1 << 20

# A generation ID in memory that firmware keeps, so that the tests' modules may write
# it, and what the kernel's command line has to say for that.
WRITABLE_ADDRESS = 0x6000000
WRITABLE_DEVICE = f"""
    Device (\\_SB.GENI) {{
        Name (_HID, "VMGENCTR")
        Name (ADDR, Package (2) {{ {WRITABLE_ADDRESS:#x}, 0 }})
    }}"""
KEEP_WRITABLE = f"memmap=4K${WRITABLE_ADDRESS:#x}"


def compiled(asl: str, folder: Path, oem: tuple[str, str] = ("TESTS ", "FIRMWARE")) -> bytes:
    """An SSDT of that text."""
    source = folder / "table.asl"
    source.write_text(f'DefinitionBlock ("", "SSDT", 2, "{oem[0]}", "{oem[1]}", 2)\n'
                      f"{{\n{asl}\n}}\n", encoding="utf-8")
    # -f: what a firmware can do wrong, iasl knows to be an error.
    host.run(["iasl", "-f", "-vs", "-p", source.with_suffix(""), source], "compiling ACPI tables")
    return source.with_suffix(".aml").read_bytes()


def archive(folder: Path, *tables: bytes) -> Path:
    """The tables as a cpio for Options.acpi."""
    image = Image()
    for number, table in enumerate(tables):
        image.file(f"kernel/firmware/acpi/{number}.aml", table)
    return image.write(folder / "tables.cpio")


def with_revision(table: bytes, revision: int) -> bytes:
    """The same table for a later ACPI, to take the place of the one it was."""
    return newer(table[:8] + bytes([revision]) + table[9:])


def hardware_reduced(fadt: bytes) -> bytes:
    """The same "FACP" table for a machine without the interrupt of ACPI, the SCI."""
    flags = struct.unpack_from("<I", fadt, FADT_FLAGS)[0] | HW_REDUCED
    return newer(fadt[:FADT_FLAGS] + struct.pack("<I", flags) + fadt[FADT_FLAGS + 4:])


def newer(table: bytes) -> bytes:
    """The table as the kernel takes it in the place of the one that it was."""
    changed = bytearray(table)
    oem_revision = struct.unpack_from("<I", changed, 24)[0]
    struct.pack_into("<I", changed, 24, oem_revision + 1)
    changed[9] = 0
    changed[9] = -sum(changed) % 256
    return bytes(changed)


def find_guid(ssdt: bytes) -> int:
    """The physical address of the GUID, out of QEMU's own table."""
    match = re.search(rb"VGIA\x0c(....)", ssdt, re.S)
    return int.from_bytes(match[1], "little") + 40
