# SPDX-License-Identifier: GPL-2.0
"""The event that QEMU raises for its generation ID, as the guest sees it."""
from harness import acpi_tables
from harness.guest import BACKEND, Guest

GPE = "/sys/firmware/acpi/interrupts/gpe05"
# Where there is none, ACPI is hardware-reduced: all interrupts of acpi_tables.EVENT_DEVICE,
# less those from before load_modules(). With a devicetree, those of the device.
INTERRUPTS = ("$(($(awk '/ACPI:Ged$|vmgenid|vm_generation_id/ { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i } "
              "END { print n + 0 }' /proc/interrupts) "
              "- $(cat /run/before 2> /dev/null || echo 0)))")
# The log of trace_reseed.ko.
SEEN = "/sys/module/trace_reseed/parameters/seen"
COUNT = f"$([ -e {GPE} ] && cut -c1-8 {GPE} || echo {INTERRUPTS})"


def by_devicetree(guest: Guest) -> bool:
    return guest.options.kernel.architecture == "arm64"


def load_modules(guest: Guest) -> None:
    """Loads them once the event of the guest's own restore is over."""
    if by_devicetree(guest):  # where there is no line to count before a driver has it
        guest.load_modules()
        guest.run(f"echo {COUNT} > /run/before")
        return
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done\n"
              f"[ -e {GPE} ] && echo 0 > {GPE} || echo {COUNT} > /run/before")
    guest.load_modules()


def events(guest: Guest) -> int:
    """How many have come since load_modules()."""
    return int(guest.run(f"echo {COUNT}"))


def mask_events(guest: Guest) -> None:
    """From now on no interrupt comes from the generation ID."""
    if by_devicetree(guest):
        guest.silent = True
        return
    guest.run(f"[ -e {GPE} ] && echo mask > {GPE} || {acpi_tables.MASK_EVENT}")


def settled_generation(guest: Guest) -> int:
    """The generation after all that one event brings; the driver is gone then."""
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done")
    guest.unload_backend()
    return guest.generation()


def interrupt(guest: Guest) -> int:
    """The number of the interrupt that brings ACPI's events, or is the device's."""
    name = r"vmgenid\|vm_generation_id" if by_devicetree(guest) else r"\<acpi\>\|ACPI:Ged"
    return int(guest.run(rf"sed -n 's/^ *\([0-9]*\):.*\({name}\).*/\1/p' /proc/interrupts"))


def interrupted_cpu(guest: Guest) -> int:
    """The processor that takes ACPI's interrupt."""
    return int(guest.run(f"cat /proc/irq/{interrupt(guest)}/effective_affinity_list"))


def on_cpu(cpu: int, command: str) -> str:
    return f"taskset {1 << cpu:x} {command}"


def switch_looks_off(guest: Guest) -> None:
    """From now on neither draws nor timer ticks detect a new GUID."""
    guest.run(f"echo off > /sys/module/{BACKEND}/parameters/looks")
