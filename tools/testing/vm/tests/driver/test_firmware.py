# SPDX-License-Identifier: GPL-2.0
"""Firmware that describes the generation ID wrongly, or as another hypervisor does.

One guest has all the devices below, and binds them one at a time. A bad device is
refused with the right error and its cause; a good or sloppy one works. Other tests
cover the firmware's actions at run time.
"""
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import acpi_tables
from harness.acpi_events import switch_looks_off
from harness.channel import Program
from harness.guest import Guest

# The guest's kernel reserves this memory: two pages per device.
RESERVED = 0x6000000
PAGES = 256
APPEND = f"memmap={PAGES * 4}K${RESERVED:#x}"
BOUND = 0
NO_DEVICE = -1
GOOD_IDS = 'Name (_HID, "VMGENCTR")'


@dataclass(frozen=True)
class Variant:
    """A device: its ASL, and the error of binding it, or BOUND.

    LOW and HIGH in the ASL are the halves of the GUID's address. The kernel's log then
    matches says; with None, it has no complaint.
    """
    name: str
    asl: str
    result: int
    says: str | None = None
    ids: str = GOOD_IDS
    offset: int = 0     # of the GUID in its page
    listed_as: str = ""     # only tested if /proc/iomem lists this, which the driver needs


def name(value: str) -> str:
    return f"Name (ADDR, {value})"


def method(body: str) -> str:
    return f"Method (ADDR, 0, Serialized) {{ {body} }}"


def pair(low: int | str, high: int | str) -> str:
    return name(f"Package (2) {{ {low}, {high} }}")


GOOD = pair("LOW", "HIGH")
FILLED = """
    Name (PAIR, Package (2) { 0, 0 })
    Method (ADDR, 0, NotSerialized) {
        PAIR [0] = LOW
        PAIR [1] = HIGH
        Return (PAIR)
    }"""
NO_PACKAGE = "ADDR is not a package"
NOT_TWO = "elements instead of 2"
NO_INTEGER = "is not an integer"
NO_HALVES = "ADDR halves .* exceed 32 bits"
TOO_FAR = "is past the last physical address"
IN_RAM = "is in RAM that is not reserved"
NO_MEMORY = "is in device registers, not in memory"
MISALIGNED = "not aligned to 8 bytes"
IN_LOW = "the whole address in its low half"

ADDRESSES = (
    Variant("absent", "", errno.ENODEV, "ADDR is missing"),
    Variant("divides_by_zero", method("Local0 = 0\nReturn (1 / Local0)"),
            errno.EIO, "evaluating ADDR failed: AE_AML_DIVIDE_BY_ZERO"),
    Variant("names_what_is_not_there", "External (\\NONE)" + method("Return (DerefOf (\\NONE))"),
            errno.EIO, "evaluating ADDR failed: AE_NOT_FOUND"),
    Variant("returns_nothing", method("Local0 = 1"), errno.EINVAL, NO_PACKAGE),
    Variant("wants_an_argument", "Method (ADDR, 1) { Return (Arg0) }",
            errno.EINVAL, NO_PACKAGE),
    Variant("integer", name("LOW"), errno.EINVAL, NO_PACKAGE),
    Variant("string", name('"0x6000000"'), errno.EINVAL, NO_PACKAGE),
    Variant("buffer", name("Buffer (8) { 0, 0, 0, 6 }"), errno.EINVAL, NO_PACKAGE),
    Variant("device", "Device (ADDR) { Name (_ADR, 0) }", errno.EIO, "evaluating ADDR failed: AE_"),
    Variant("nested_package", name("Package (1) { Package (2) { LOW, HIGH } }"),
            errno.EINVAL, NOT_TWO),
    Variant("two_nested_packages", pair("Package (1) { LOW }", "Package (1) { HIGH }"),
            errno.EINVAL, NO_INTEGER),
    Variant("no_element", name("Package (0) {}"), errno.EINVAL, NOT_TWO),
    Variant("one_element", name("Package (1) { LOW }"), errno.EINVAL, NOT_TWO),
    Variant("three_elements", name("Package (3) { LOW, HIGH, 0 }"), errno.EINVAL, NOT_TWO),
    Variant("empty_second_element", name("Package (2) { LOW }"), errno.EINVAL, NO_INTEGER),
    Variant("strings_as_elements", pair('"0x6000000"', '"0"'), errno.EINVAL, NO_INTEGER),
    Variant("buffers_as_elements", pair("Buffer (4) { 0, 0, 0, 6 }", "Buffer (4) {}"),
            errno.EINVAL, NO_INTEGER),
    Variant("reference_as_element", pair("LOW", "\\_SB"), errno.EINVAL, NO_INTEGER),
    Variant("both_halves_claim_the_same_bits", pair("0x106000000", "1"),
            errno.EINVAL, NO_HALVES),
    Variant("high_over_32_bits", pair("LOW", "0x100000000"), errno.EINVAL, NO_HALVES),
    Variant("all_ones", pair("Ones", "Ones"), errno.EINVAL, NO_HALVES),
    Variant("zero", pair(0, 0), errno.EINVAL, "ADDR is 0"),
    Variant("past_the_physical_width", pair("LOW", "0x10000"), errno.EINVAL, TOO_FAR),
    Variant("far_past_the_physical_width", pair(0, "0xFFFFFFFF"), errno.EINVAL, TOO_FAR),
    Variant("low_past_the_physical_width", pair("0x4000000000000000", 0),
            errno.EINVAL, f"{IN_LOW}\n.*{TOO_FAR}"),
    Variant("wraps", pair("0xFFFFFFF8", "0xFFFFFFFF"), errno.EINVAL, TOO_FAR),
    Variant("ends_past_the_physical_width", pair("0xFFFFFFF8", "0xFF"),
            errno.EINVAL, TOO_FAR),
    Variant("in_the_kernels_memory", pair("0x1000000", 0), errno.EBUSY, IN_RAM),
    Variant("begins_in_the_kernels_memory", pair(f"{RESERVED - 8:#x}", 0),
            errno.EBUSY, IN_RAM),
    Variant("ends_in_the_kernels_memory", pair(f"{RESERVED + PAGES * 4096 - 8:#x}", 0),
            errno.EBUSY, IN_RAM),
    Variant("in_the_interrupt_controller", pair("0xFEC00000", 0), errno.EBUSY, NO_MEMORY),
    Variant("in_the_local_interrupt_controller", pair("0xFEE00000", 0),
            errno.EBUSY, NO_MEMORY, listed_as="Local APIC"),
    Variant("in_the_timer", pair("0xFED000F0", 0), errno.EBUSY, NO_MEMORY),
    Variant("among_the_pci_devices", pair("0xE0000000", 0), errno.EBUSY, NO_MEMORY),
    Variant("misaligned", GOOD, BOUND, MISALIGNED, offset=0x7F),
    Variant("aligned_to_8", GOOD, BOUND, offset=0x28),
    Variant("across_a_page_boundary", GOOD, BOUND, offset=0xFF8),
    Variant("misaligned_across_a_page_boundary", GOOD, BOUND, MISALIGNED, offset=0xFFD),
    Variant("name", GOOD, BOUND),
    Variant("method", FILLED, BOUND),
    Variant("method_that_sleeps", method("Sleep (20)\nReturn (Package (2) { LOW, HIGH })"), BOUND),
    Variant("package_of_named_values", "Name (VLOW, LOW)\nMethod (ADDR, 0, Serialized) "
            "{ Name (LPKG, Package (2) { 0, 0 }) LPKG [0] = VLOW\nReturn (LPKG) }", BOUND),
    Variant("status_0", GOOD + "Name (_STA, 0)", NO_DEVICE),
    Variant("status_from_a_method_0", GOOD + "Method (_STA) { Return (0) }", NO_DEVICE),
    Variant("no_id", GOOD, NO_DEVICE, ids="Name (_ADR, 7)"),
    Variant("another_id", GOOD, errno.ENODEV, ids='Name (_HID, "TEST0002")'),
)

CID = 'Name (_CID, "VM_Gen_Counter")\nName (_DDN, "VM_Gen_Counter")\n'
# The descriptions of the device by known hypervisors.
HYPERVISORS = (
    Variant("hyper_v", method("Name (LPKG, Package () { 0, 0 }) LPKG [0] = LOW\n"
                              "LPKG [1] = HIGH\nReturn (LPKG)"), BOUND,
            ids='Name (_HID, "Hyper_V_Gen_Counter_V1")\n' + CID),
    Variant("hyper_v_2025", method("Name (LPKG, Package () { 0, 0 }) LPKG [0] = LOW\n"
                                   "LPKG [1] = HIGH\nReturn (LPKG)"), BOUND,
            ids='Name (_HID, "MSFT1002")\nName (_CID, Package (3) { "VM_Gen_Counter", '
                '"VMGENCTR", "Hyper_V_Gen_Counter_V1" })\nName (_DDN, "VM_Gen_Counter")'),
    Variant("xen", "Name (PKG, Package () { 0, 0 })\nMethod (ADDR, 0, NotSerialized) "
                   "{ PKG [0] = LOW\nPKG [1] = HIGH\nReturn (PKG) }", BOUND,
            ids='Name (_HID, EisaId ("XEN0000"))\n' + CID),
    Variant("firecracker", GOOD, BOUND, ids='Name (_HID, "FCVMGID")\n' + CID),
    Variant("qemu", "Name (VGIA, LOW)\nMethod (_STA) { Local0 = 15\nIf (VGIA == 0) { Local0 = 0 }\n"
            "Return (Local0) }\nMethod (ADDR) { Local0 = Package (2) {}\nLocal0 [0] = VGIA\n"
            "Local0 [1] = 0\nReturn (Local0) }", BOUND,
            ids='Name (_HID, "QEMUVGID")\n' + CID),
    Variant("vmgenctr", GOOD, BOUND, ids='Name (_HID, "VMGENCTR")\n' + CID),
    Variant("vmgenid", GOOD, BOUND, ids='Name (_HID, "VMGENID")'),
    # Other hypervisors, such as VMware, promise only the compatible id.
    Variant("compatible_id_only", GOOD, BOUND, ids='Name (_HID, "TEST0003")\n' + CID),
    Variant("compatible_id_second", GOOD, BOUND,
            ids='Name (_HID, "TEST0004")\nName (_CID, Package () { "TEST0005", "VM_Gen_Counter" })'),
    Variant("compatible_id_in_capitals", GOOD, BOUND,
            ids='Name (_HID, "TEST0006")\nName (_CID, "VM_GEN_COUNTER")'),
)
VARIANTS = ADDRESSES + HYPERVISORS


def address(index: int) -> int:
    """Returns the address of a device's GUID; each device has two pages of its own."""
    return RESERVED + index * 2 * 4096 + VARIANTS[index].offset


def device(index: int) -> str:
    variant = VARIANTS[index]
    text = f"{variant.ids}\nName (_UID, {index})\n{variant.asl}"
    text = re.sub(r"\bLOW\b", f"{address(index):#x}", text)
    text = re.sub(r"\bHIGH\b", "0", text)
    return f"Device (\\_SB.{node(index)}) {{\n{text}\n}}\n"


def node(index: int) -> str:
    return f"V{index:03d}"


def index_of(name: str) -> int:
    return [variant.name for variant in VARIANTS].index(name)


# The interpreter limits a loop to 30 s, so a gust has only this many notifications. A
# stock kernel gets GUSTS of them, a slower one gets one.
GUST = 100
GUSTS = 100
THE_ONE = index_of("name")
# Firmware's action when a guest reads the attribute "sun" of such a device.
ACTIONS = {
    "notify": f"Notify ({node(THE_ONE)}, 0x80)",
    "other_codes": f"""Local0 = 0x81
        While (Local0 < 0x100) {{ Notify ({node(THE_ONE)}, Local0)\nLocal0++ }}""",
    "gust": f"""Local0 = 0
        While (Local0 < {GUST}) {{ Notify ({node(THE_ONE)}, 0x80)\nLocal0++ }}""",
    "gust_and_change": f"""Local0 = 0
        While (Local0 < {GUST}) {{
            If (Local0 == {GUST // 2}) {{ GUID = 0x1234567890ABCDEF }}
            Notify ({node(THE_ONE)}, 0x80)
            Local0++
        }}""",
}
# The ASL writes only the GUID's first half, in one access.
ACTION = """
    Device (\\_SB.{node}) {{
        Name (_HID, "TEST1000")
        Name (_UID, "{name}")
        OperationRegion (PAGE, SystemMemory, {address:#x}, 16)
        Field (PAGE, QWordAcc, NoLock, Preserve) {{ GUID, 64 }}
        Method (_SUN, 0, Serialized) {{ {body}\nReturn (0) }}
    }}
"""


def all_devices() -> str:
    actions = [ACTION.format(node=f"A{number:03d}", name=name, address=address(THE_ONE), body=body)
               for number, (name, body) in enumerate(ACTIONS.items())]
    return "".join([*map(device, range(len(VARIANTS))), *actions])


class Firmware:
    """A guest with all the devices; the driver binds to none by itself."""

    def __init__(self, guest):
        self.guest = guest
        guest.run("echo 0 > /sys/bus/platform/drivers_autoprobe")
        guest.load_modules()
        # A tick may see a GUID that dd has only half written.
        switch_looks_off(guest)
        listed = guest.run("for device in /sys/bus/acpi/devices/*; do printf '%s|' $device "
                           "\"$(cat $device/path 2> /dev/null)\" \"$(readlink $device/physical_node)\"; echo; done")
        rows = [line.split("|") for line in listed.splitlines()]
        self.acpi = {row[1][-4:]: row[0] for row in rows}
        self.platform = {row[1][-4:]: row[2].rpartition("/")[2] for row in rows if row[2]}

    def bind(self, index: int) -> tuple[int, str]:
        """Binds a device; returns the error, or BOUND, and the kernel's log of it."""
        name = self.platform.get(node(index))
        if not name:
            return NO_DEVICE, ""
        said = self.guest.run(
            "dmesg -c > /dev/null\n"
            f"(echo {name} > /sys/bus/platform/drivers/vm_generation_id/bind) 2>&1\n"
            "echo END\ndmesg")
        error, log = said.split("END\n")
        found = [number for number in errno.errorcode if error.strip().endswith(
            f": {os.strerror(number)}")]
        assert found or not error, error
        return (found or [BOUND])[0], log

    def unbind(self, index: int) -> None:
        self.guest.run(f"echo {self.platform[node(index)]} > "
                       "/sys/bus/platform/drivers/vm_generation_id/unbind")

    def write_guid(self, index: int) -> None:
        """Writes a random GUID, as a hypervisor would."""
        self.guest.run(f"head -c16 /dev/urandom | dd of=/dev/mem bs=16 count=1 "
                       f"seek={address(index)} oflag=seek_bytes conv=notrunc 2> /dev/null")

    def act(self, *names: str) -> None:
        attributes = [f"{self.acpi[f'A{list(ACTIONS).index(name):03d}']}/sun" for name in names]
        self.guest.run(f"cat {' '.join(attributes)}", 120)

    def source(self) -> str:
        return self.guest.run("cat /sys/class/misc/sysgenid/source").strip()


@pytest.fixture
def dsdt(boot) -> bytes:
    """QEMU's DSDT with revision 2, as revision 1 limits integers to 32 bits."""
    return acpi_tables.with_revision(acpi_tables.dump(boot(guid=None), "DSDT"), 2)


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> Path:
    """A directory for the tables, whose path stays so that guests share a snapshot."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture
def firmware(boot, dsdt, tables) -> Firmware:
    archive = acpi_tables.archive(tables, dsdt, acpi_tables.compiled(all_devices(), tables))
    return Firmware(boot(acpi=archive, guid=None, append=APPEND))


def blocked_reader(guest: Guest) -> Program:
    """Starts a program that prints the next generation; returns once it is blocked."""
    reader = guest.start("head -c4 /dev/sysgenid | od -An -tu4")
    guest.run("until grep -q sysgenid_read /proc/*/task/*/stack 2> /dev/null; do :; done")
    return reader


def check_bound(firmware: Firmware, index: int) -> None:
    """Checks that a new GUID of the bound device counts once."""
    before = firmware.guest.generation()
    assert firmware.guest.generation() == before
    firmware.write_guid(index)
    assert firmware.guest.generation() == before + 1
    assert firmware.guest.generation() == before + 1


def expected_lines(variant: Variant) -> int:
    """Returns the number of lines that the driver has to log."""
    complaints = variant.says.count("\n") + 1 if variant.says else 0
    return complaints + (variant.result == BOUND)


def check(firmware: Firmware, index: int) -> None:
    variant = VARIANTS[index]
    result, log = firmware.bind(index)
    # Newer kernels log a failed probe themselves, with the driver's prefix.
    said = [line for line in log.splitlines()
            if "vm_generation_id " in line and "probe with driver" not in line]
    try:
        assert result == variant.result, f"{log}"
        assert firmware.source() == ("vmgenid" if result == BOUND else "none")
        assert not variant.says or re.search(variant.says, log)
        assert len(said) == expected_lines(variant)
        if result == BOUND:
            check_bound(firmware, index)
    finally:
        if result == BOUND:
            firmware.unbind(index)


@pytest.mark.kernels("6.1-cloud", "6.12-debug")
def test_each_variant_binds_or_is_refused(firmware):
    wrong = []
    listed = firmware.guest.run("cat /proc/iomem")
    for index, variant in enumerate(VARIANTS):
        try:
            if variant.listed_as in listed:
                check(firmware, index)
        except AssertionError as error:
            wrong.append(f"{variant.name}: {error}")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.kernels("6.1-cloud", "6.12-debug")
def test_second_device_is_refused_until_first_unbinds(firmware):
    first, second = index_of("qemu"), index_of("xen")
    assert firmware.bind(first)[0] == BOUND
    result, log = firmware.bind(second)
    assert result == errno.EBUSY and "the system already has a generation ID device" in log
    firmware.unbind(first)
    assert firmware.bind(second)[0] == BOUND
    check_bound(firmware, second)


@pytest.mark.kernels("6.1-cloud", "6.12-debug")
def test_only_notify_0x80_with_new_guid_counts(firmware):
    guest = firmware.guest
    assert firmware.bind(THE_ONE)[0] == BOUND
    before = guest.generation()
    firmware.act("notify")
    firmware.act("other_codes")
    assert guest.generation() == before

    # A blocked reader does not look at the GUID: only Notify wakes it.
    reader = blocked_reader(guest)
    firmware.write_guid(THE_ONE)
    firmware.act("other_codes")
    guest.run("sleep 1")
    assert reader.status is None
    firmware.act("notify")
    assert reader.wait() == 0
    assert int(reader.output) == before + 1


@pytest.mark.kernels("6.1-cloud", "6.12-debug")
def test_notify_storm_neither_adds_nor_hides_event(firmware):
    assert firmware.bind(THE_ONE)[0] == BOUND
    before = firmware.guest.generation()
    gusts = ["gust"] * (GUSTS if firmware.guest.patience == 1 else 1)
    firmware.act(*gusts)
    assert firmware.guest.generation() == before
    firmware.act(*gusts, "gust_and_change", *gusts)
    assert firmware.guest.generation() == before + 1
    firmware.unbind(THE_ONE)
    assert firmware.guest.generation() == before + 1


@pytest.mark.kernels("6.1-cloud", "6.12-debug")
def test_whole_address_in_low_half_is_tolerated(boot, dsdt, tmp_path):
    """The address is above 4 GiB, as a smaller one fits into the low half anyway."""
    tables = acpi_tables.archive(tmp_path, dsdt, acpi_tables.compiled(
        f"Device (\\_SB.VGEN) {{ {GOOD_IDS}\n{pair('0x100000000', 0)} }}", tmp_path))
    guest = boot(acpi=tables, guid=None, append="memmap=4K$0x100000000", memory=3700, fresh=True)
    guest.load_modules()
    assert IN_LOW in guest.log()
    assert guest.run("cat /sys/class/misc/sysgenid/source").strip() == "vmgenid"


def test_bad_firmware_leaves_counter_for_software(boot, tmp_path):
    """The driver binds by itself here, on every kernel."""
    tables = acpi_tables.archive(tmp_path, acpi_tables.compiled(
        f"Device (\\_SB.VGEN) {{ {GOOD_IDS}\n{pair(0, 0)} }}", tmp_path))
    guest = boot(acpi=tables, guid=None, fresh=True)
    guest.load_modules()
    assert guest.log().count("ADDR is 0") == 1
    assert guest.run("cat /sys/class/misc/sysgenid/source").strip() == "none"
    guest.run("abi_test", 120)
    guest.unload_modules()


def test_hyper_v_device_detects_restore(boot, tmp_path):
    """Replaces QEMU's table by one like Hyper-V's, with the same GUID."""
    guid = acpi_tables.find_guid(acpi_tables.dump(boot(), "SSDT"))
    ids = VARIANTS[index_of("hyper_v_2025")].ids
    table = acpi_tables.compiled(f"""
        Device (\\_SB.GENC) {{
            {ids}
            Method (ADDR) {{
                Name (LPKG, Package () {{ 0, 0 }})
                LPKG [0] = {guid:#x}
                LPKG [1] = 0
                Return (LPKG)
            }}
        }}
        Method (\\_GPE._E05) {{ Notify (\\_SB.GENC, 0x80) }}""", tmp_path, acpi_tables.QEMU_OEM)
    guest = boot(acpi=acpi_tables.archive(tmp_path, table), fresh=True)
    guest.load_modules()
    assert guest.run("cat /sys/class/misc/sysgenid/source").strip() == "vmgenid"
    reader = blocked_reader(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.program(reader).wait() == 0
        assert int(clone.program(reader).output) == 1
        assert clone.generation() == 1


@pytest.mark.kernels("6.1-cloud")
def test_system_calls_detect_restore_without_interrupt(boot, tmp_path):
    """Hardware-reduced ACPI without a Generic Event Device has no interrupt."""
    fadt = acpi_tables.hardware_reduced(acpi_tables.dump(boot(), "FACP"))
    guest = boot(acpi=acpi_tables.archive(tmp_path, fadt), fresh=True)
    guest.load_modules()
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1
        clone.unload_modules()
