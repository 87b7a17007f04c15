# SPDX-License-Identifier: GPL-2.0
"""A GUID in NVS memory, which the kernel may restore when it resumes from suspend to RAM.

The tests' own device has no interrupt, so only the resume detects a change. For
hibernation, see test_hibernation.py.
"""
import pytest
from harness import acpi_tables, kernels
from harness.guest import Guest
from test_bind_unbind import suspend

pytestmark = pytest.mark.kernels(*kernels.STOCK)
ADDRESS = 0x6000000
DEVICE = f"""
    Device (\\_SB.GENI) {{
        Name (_HID, "VMGENCTR")
        Name (ADDR, Package (2) {{ {ADDRESS:#x}, 0 }})
    }}"""
# With firmware this old, the kernel restores NVS memory on resume from suspend to RAM.
OLD_FIRMWARE = ("-smbios", "type=0,date=01/01/2010")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nvs")
    return acpi_tables.archive(directory, acpi_tables.compiled(DEVICE, directory))


@pytest.fixture
def start(boot, tables):
    def started(settings: tuple[str, ...] = ()) -> Guest:
        """Boots a guest whose GUID is in RAM that the memory map declares as NVS."""
        guest = boot(acpi=tables, guid=None, settings=settings,
                     append=f"memmap=4K%{ADDRESS:#x}-1+4")
        guest.load_modules()
        assert "ACPI Non-volatile Storage" in guest.run(f"grep -i {ADDRESS:x} /proc/iomem")
        return guest
    return started


def new_guid_while_suspended(guest: Guest) -> str:
    """Writes a new GUID while the guest is suspended; returns the page's GUID before."""
    guest.run(f"insmod /modules/write_while_suspended.ko address={ADDRESS:#x}")
    before = guest.run("map_hardware < /dev/null")
    suspend(guest)
    return before


def test_new_guid_during_suspend_counts(start):
    guest = start()
    before = new_guid_while_suspended(guest)
    assert guest.generation() == 1
    assert guest.run("map_hardware < /dev/null") != before


def test_new_guid_overwritten_on_resume_counts(start):
    guest = start(OLD_FIRMWARE)
    before = new_guid_while_suspended(guest)
    assert guest.generation() == 1
    assert guest.run("map_hardware < /dev/null") == before


@pytest.mark.kernels("6.12-debug")
def test_suspend_counts_where_nvs_is_restored(start):
    """This kernel always restores NVS memory: without DMI, it takes firmware for old."""
    guest = start(OLD_FIRMWARE)
    suspend(guest)
    assert guest.generation() == 1


def test_suspend_counts_nothing_where_nvs_stays(start):
    guest = start()
    suspend(guest)
    assert guest.generation() == 0


@pytest.mark.parametrize("suspended_before", [False, True])
def test_xen_resume_with_same_guid_counts_nothing(start, suspended_before):
    """An earlier suspend to RAM leaves the flag that firmware has resumed the system."""
    guest = start()
    if suspended_before:
        suspend(guest)
    guest.run("insmod /modules/resume_as_xen.ko; echo 1 > /sys/module/resume_as_xen/parameters/resume")
    assert guest.generation() == 0
    guest.unload_backend()
    assert guest.generation() == 0


def test_xen_resume_detects_new_guid(start):
    guest = start()
    guest.run(f"insmod /modules/write_guid.ko address={ADDRESS:#x}; insmod /modules/resume_as_xen.ko")
    watcher = guest.start("wait_generation map")
    watcher.wait_for("^watching 0$")
    guest.run("echo 16 0 > /sys/module/write_guid/parameters/write;"
              "echo 1 > /sys/module/resume_as_xen/parameters/resume")
    watcher.wait_for("^woken 1$")
    assert guest.generation() == 1
