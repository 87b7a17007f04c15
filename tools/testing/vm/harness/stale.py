# SPDX-License-Identifier: GPL-2.0
"""Looks at the generation after a restore, and how many of them were stale."""
from collections.abc import Iterator

from harness.channel import Program
from harness.guest import Guest

RESTORES = 20
# Where one that is stale shows the bug more often than not; and with a kernel that
# is slow, as it has other bugs to find.
FEWER_RESTORES = 5


def restores(guest: Guest) -> range:
    many = guest.patience == 1 and not guest.options.acpi
    return range(RESTORES if many else FEWER_RESTORES)


def stale_looks(guest: Guest, watcher: Program,
                times: range | None = None) -> Iterator[tuple[int, int]]:
    """Restores the guest again and again: how often, and for how many µs, was it stale?"""
    watcher.wait_for("^watching")
    with guest.snapshot() as snap:
        for _ in times or restores(guest):
            with snap.restore() as clone:
                times, duration = clone.program(watcher).wait_for(r"^stale (\d+) (\d+)").groups()
                yield int(times), int(duration)
