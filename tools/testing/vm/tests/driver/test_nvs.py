# SPDX-License-Identifier: GPL-2.0
"""A GUID in NVS memory, which the kernel can put back as it was before a suspend.

The tests' own device has it there; no interrupt tells of a change, only resuming does.
Hibernation is in test_hibernation.py.
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
# The kernel puts NVS memory back after suspending to RAM if firmware is this old.
OLD_FIRMWARE = ("-smbios", "type=0,date=01/01/2010")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nvs")
    return acpi_tables.archive(directory, acpi_tables.compiled(DEVICE, directory))


@pytest.fixture
def start(boot, tables):
    def started(settings: tuple[str, ...] = ()) -> Guest:
        """A guest with the GUID in RAM that firmware declares to be NVS memory."""
        guest = boot(acpi=tables, guid=None, settings=settings,
                     append=f"memmap=4K%{ADDRESS:#x}-1+4")
        guest.load_modules()
        assert "ACPI Non-volatile Storage" in guest.run(f"grep -i {ADDRESS:x} /proc/iomem")
        return guest
    return started


def new_guid_while_suspended(guest: Guest) -> str:
    """Suspends the guest, with a new GUID meanwhile; what was there before?"""
    guest.run(f"insmod /modules/write_while_suspended.ko address={ADDRESS:#x}")
    before = guest.run("map_hardware < /dev/null")
    suspend(guest)
    return before


def test_new_guid_while_suspended_to_ram_counts(start):
    guest = start()
    before = new_guid_while_suspended(guest)
    assert guest.generation() == 1
    assert guest.run("map_hardware < /dev/null") != before


def test_new_guid_while_suspended_to_ram_counts_if_nvs_memory_is_put_back_over_it(start):
    guest = start(OLD_FIRMWARE)
    before = new_guid_while_suspended(guest)
    assert guest.generation() == 1
    assert guest.run("map_hardware < /dev/null") == before


@pytest.mark.kernels("6.12-debug")
def test_suspend_to_ram_counts_where_nvs_memory_is_put_back(start):
    """Here always: this kernel has no DMI, and so takes no firmware for new."""
    guest = start(OLD_FIRMWARE)
    suspend(guest)
    assert guest.generation() == 1


def test_suspend_to_ram_is_no_event_where_nvs_memory_is_not_put_back(start):
    guest = start()
    suspend(guest)
    assert guest.generation() == 0


@pytest.mark.parametrize("suspended_before", [False, True])
def test_resume_as_on_xen_with_the_same_guid_is_no_event(start, suspended_before):
    """Also if a suspend to RAM has left the mark that firmware had resumed the system."""
    guest = start()
    if suspended_before:
        suspend(guest)
    guest.run("insmod /modules/resume_as_xen.ko; echo 1 > /sys/module/resume_as_xen/parameters/resume")
    assert guest.generation() == 0
    guest.unload_backend()
    assert guest.generation() == 0


def test_resume_as_on_xen_notices_a_new_guid(start):
    guest = start()
    guest.run(f"insmod /modules/write_guid.ko address={ADDRESS:#x}; insmod /modules/resume_as_xen.ko")
    watcher = guest.start("wait_generation map")
    watcher.wait_for("^watching 0$")
    guest.run("echo 16 0 > /sys/module/write_guid/parameters/write;"
              "echo 1 > /sys/module/resume_as_xen/parameters/resume")
    watcher.wait_for("^woken 1$")
    assert guest.generation() == 1
