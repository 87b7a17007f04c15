# SPDX-License-Identifier: GPL-2.0
"""The event that QEMU raises for its generation ID, as the guest's ACPI sees it."""
from guest import Guest

GPE = "/sys/firmware/acpi/interrupts/gpe05"
COUNT = f"$(cut -c1-8 {GPE})"


def load_modules(guest: Guest) -> None:
    """Loads them once the event of the guest's own restore is over."""
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done; echo 0 > {GPE}")
    guest.load_modules()


def events(guest: Guest) -> int:
    """How many have come since load_modules()."""
    return int(guest.run(f"echo {COUNT}"))


def mask_events(guest: Guest, mask: str = "mask") -> None:
    """From now on no interrupt comes from the generation ID."""
    guest.run(f"echo {mask} > {GPE}")


def settled_generation(guest: Guest) -> int:
    """The generation after all that one event brings; the driver is gone then."""
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done")
    guest.unload_backend()
    return guest.generation()


def interrupt(guest: Guest) -> int:
    """The number of ACPI's interrupt."""
    return int(guest.run(r"sed -n 's/^ *\([0-9]*\):.*\<acpi\>.*/\1/p' /proc/interrupts"))


def interrupted_cpu(guest: Guest) -> int:
    """The processor that takes ACPI's interrupt."""
    return int(guest.run(f"cat /proc/irq/{interrupt(guest)}/effective_affinity_list"))


def on_cpu(cpu: int, command: str) -> str:
    return f"taskset {1 << cpu:x} {command}"
