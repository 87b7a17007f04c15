# SPDX-License-Identifier: GPL-2.0
"""The guest's view of the event that QEMU raises for its generation ID."""
from harness import acpi_tables
from harness.guest import BACKEND, Guest

GPE = "/sys/firmware/acpi/interrupts/gpe05"
# A guest without this GPE has hardware-reduced ACPI or a devicetree. This expression
# counts the interrupts of acpi_tables.EVENT_DEVICE, or of the device in the devicetree.
# It subtracts the interrupts before load_modules().
INTERRUPTS = ("$(($(awk '/ACPI:Ged$|vmgenid|vm_generation_id/ { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i } "
              "END { print n + 0 }' /proc/interrupts) "
              "- $(cat /run/before 2> /dev/null || echo 0)))")
# trace_reseed.ko logs here.
SEEN = "/sys/module/trace_reseed/parameters/seen"
COUNT = f"$([ -e {GPE} ] && cut -c1-8 {GPE} || echo {INTERRUPTS})"


def by_devicetree(guest: Guest) -> bool:
    return guest.options.kernel.architecture == "arm64"


def load_modules(guest: Guest) -> None:
    """Loads the modules after the event of the guest's own restore."""
    if by_devicetree(guest):  # the interrupt is counted only once a driver has requested it
        guest.load_modules()
        guest.run(f"echo {COUNT} > /run/before")
        return
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done\n"
              f"[ -e {GPE} ] && echo 0 > {GPE} || echo {COUNT} > /run/before")
    guest.load_modules()


def events(guest: Guest) -> int:
    """Returns the number of events since load_modules()."""
    return int(guest.run(f"echo {COUNT}"))


def mask_events(guest: Guest) -> None:
    """Keeps the generation ID from raising an interrupt from now on."""
    if by_devicetree(guest):
        guest.silent = True
        return
    guest.run(f"[ -e {GPE} ] && echo mask > {GPE} || {acpi_tables.MASK_EVENT}")


def settled_generation(guest: Guest) -> int:
    """Returns the generation once one event is handled, and unloads the driver."""
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done")
    guest.unload_backend()
    return guest.generation()


def interrupt(guest: Guest) -> int:
    """Returns the number of ACPI's interrupt, or of the device's with a devicetree."""
    name = r"vmgenid\|vm_generation_id" if by_devicetree(guest) else r"\<acpi\>\|ACPI:Ged"
    return int(guest.run(rf"sed -n 's/^ *\([0-9]*\):.*\({name}\).*/\1/p' /proc/interrupts"))


def interrupted_cpu(guest: Guest) -> int:
    """Returns the CPU that takes the interrupt of the generation ID."""
    return int(guest.run(f"cat /proc/irq/{interrupt(guest)}/effective_affinity_list"))


def on_cpu(cpu: int, command: str) -> str:
    return f"taskset {1 << cpu:x} {command}"


def switch_looks_off(guest: Guest) -> None:
    """Keeps draws and timer ticks from detecting a new GUID from now on."""
    guest.run(f"echo off > /sys/module/{BACKEND}/parameters/looks")
