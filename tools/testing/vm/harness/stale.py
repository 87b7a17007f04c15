# SPDX-License-Identifier: GPL-2.0
"""Counts the stale looks at the generation after a restore."""
from collections.abc import Iterator

from harness.channel import Program
from harness.guest import Guest

RESTORES = 10
# For tests where a bug shows in most restores, and for slow kernels, which look for
# other bugs.
FEWER_RESTORES = 5


def restores(guest: Guest) -> range:
    many = guest.patience == 1 and not guest.options.acpi
    return range(RESTORES if many else FEWER_RESTORES)


def stale_looks(guest: Guest, watcher: Program,
                times: range | None = None) -> Iterator[tuple[int, int]]:
    """Restores the guest repeatedly; yields each clone's stale looks and their µs."""
    watcher.wait_for("^watching")
    with guest.snapshot() as snap:
        for _ in times or restores(guest):
            with snap.restore() as clone:
                times, duration = clone.program(watcher).wait_for(r"^stale (\d+) (\d+)").groups()
                yield int(times), int(duration)
