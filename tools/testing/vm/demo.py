# SPDX-License-Identifier: GPL-2.0
"""Demonstrates the drivers: one guest, its snapshot, and two clones.

Prints each step as it happens. `make demo` runs it.
"""
import shutil
import time
from pathlib import Path

from harness import build, host, kernels, packages
from harness.channel import GuestGone, Program
from harness.guest import Guest, Options, Snapshot, accelerator, new_guid
from harness.qmp import QmpError

KERNEL = "6.1-cloud"
GPE = "/sys/firmware/acpi/interrupts/gpe05"


def say(text: str = "") -> None:
    print(text, flush=True)


def seconds_since(start: float) -> str:
    return f"{time.monotonic() - start:.1f} s"


def start_programs(guest: Guest) -> dict[str, Program]:
    """Starts the programs that detect that the guest has become a clone."""
    programs = {"poll": guest.start("wait_generation poll"),
                "draw": guest.start("draw_random map early"),
                "stale": guest.start("stale_window map")}
    programs["poll"].wait_for("^watching")
    programs["draw"].wait_for("^drawing")
    programs["stale"].wait_for("^watching")
    return programs


def boot(logs: Path) -> Guest:
    kernel = kernels.get(KERNEL)
    start = time.monotonic()
    guest = Guest(Options(kernel, build.image(kernel), guid=new_guid(),
                          cpu_flags="-rdrand,-rdseed", append="random.trust_cpu=off"), logs)
    say(f"A guest starts: Linux {kernel.release} in QEMU, without any random number instruction.")
    say(f"  GUID        {guest.options.guid}")
    guest.load_modules()
    say(f"  generation  {guest.generation()}, modules loaded {seconds_since(start)} after power-on")
    return guest


def show_clone(name: str, clone: Guest, programs: dict[str, Program]) -> str:
    """Prints what a clone's programs have seen, and returns its first random bytes."""
    poll, draw, stale = (clone.program(programs[key]) for key in ("poll", "draw", "stale"))
    woken = poll.wait_for(r"^woken (\d+)")[1]
    looks, duration = stale.wait_for(r"^stale (\d+) (\d+)").groups()
    drew = draw.wait_for(r"^drew (\w+)$")[1]
    say(f"Clone {name}:")
    say(f"  GUID        {clone.options.guid}")
    say(f"  generation  {clone.generation()}")
    say(f"  poll()      woken, read() gives {woken}")
    say(f"  mapped page stale for {looks} looks after the restore ({duration} µs)")
    say(f"  getrandom() {drew}")
    return drew


def show_same(snap: Snapshot, programs: dict[str, Program]) -> None:
    with snap.restore(snap.options.guid) as clone:
        clone.run(f"until [ $(cut -c1-8 {GPE}) -gt 0 ]; do :; done")
        clone.unload_backend()
        asleep = clone.program(programs["poll"]).status is None
        say("Restored with its own GUID, as after a move to another host:")
        say(f"  generation  {clone.generation()}")
        say(f"  poll()      {'still asleep' if asleep else 'woken'}")


def show(logs: Path) -> None:
    guest = boot(logs)
    programs = start_programs(guest)
    say("  programs    one sleeps in poll(), one draws random numbers, one compares the GUID")
    say("              in memory with the mapped page; the kernel wakes only the first")
    start = time.monotonic()
    with guest.snapshot() as snap:
        say(f"Its snapshot is taken: {snap.size >> 20} MiB in {seconds_since(start)}."
            " The guest is gone.")
        with snap.restore_all(new_guid(), new_guid()) as clones:
            drawn = [show_clone(name, clone, programs) for name, clone in zip("AB", clones)]
        show_same(snap, programs)
    if drawn[0] == drawn[1]:
        raise host.SetupError("both clones drew the same random bytes")
    say("Two clones of one memory image: each was notified, and they share no random byte.")


def main() -> None:
    logs = host.BUILD / "logs/demo"
    packages.install(packages.DEMO)
    accelerator()
    build.prepare([KERNEL], only="vmgenid")
    with host.locked("demo", host.BUILD / "locks"):
        shutil.rmtree(logs, ignore_errors=True)
        try:
            show(logs)
        except (GuestGone, QmpError, AssertionError) as error:
            raise host.SetupError(str(error)) from None
        shutil.rmtree(logs)


if __name__ == "__main__":
    host.main(main)
