# SPDX-License-Identifier: GPL-2.0
"""Restores a fleet: many clones of one snapshot, two at a time.

Each clone must have a GUID of its own, one new generation, and random numbers that no
other clone draws. Prints a summary, and plots how long each clone took to settle;
`make fleet` runs it.
"""
import argparse
import json
import re
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import build, host, kernels, packages, userspace
from harness.channel import GuestGone, Program
from harness.guest import Guest, Options, Snapshot, accelerator, new_guid
from harness.kernels import Kernel
from harness.qmp import QmpError

KERNEL = "6.1-cloud"
CPUS = 2
CLONES = 32
# How many clones run at the same time.
TOGETHER = 2
# Each CPU's draws after the restore: KEPT in draw_everywhere.c, and as many of the library's.
DRAWS = 64
# The interfaces of draw_everywhere.c, which draw in turn.
INTERFACES = 5
UUID = 2
# Nothing but the GUID can make the clones' random numbers differ.
PREDICTABLE = {"cpu_flags": "-rdrand,-rdseed",
               "append": "random.trust_cpu=off random.trust_bootloader=off"}
# A clone that has not settled for so long is a fault, in seconds.
PATIENCE = 120
PLOT = host.BUILD / "fleet/settled.svg"


@dataclass(frozen=True)
class Clone:
    """The GUID that one clone was given, and what it has shown."""
    guid: str
    generation: int
    state: str              # the overseer's last word
    seconds: float          # from the first instruction after the restore to that
    draws: list[list[str]]  # by CPU: 16 bytes in hexadecimal, from each interface in turn
    numbers: list[list[str]]    # by CPU: 8 bytes, from a generator that uses the library

    def uuid_positions(self) -> range:
        """Which of each CPU's draws are UUIDs: the GUID's last byte says what draws first."""
        return range((UUID - int(self.guid[-2:], 16)) % INTERFACES, DRAWS, INTERFACES)

    def uuids(self) -> list[str]:
        """The draws from /proc/sys/kernel/random/uuid."""
        positions = self.uuid_positions()
        return [draw for draws in self.draws for draw in draws[positions.start::positions.step]]


@dataclass(frozen=True)
class Values:
    """All values of one kind that a fleet has shown."""
    kind: str
    expected: int
    values: list[str]

    @property
    def repeated(self) -> list[str]:
        """The values that are there more than once."""
        return [value for value, times in Counter(self.values).items() if times > 1]

    def __str__(self) -> str:
        return f"{len(set(self.values))} distinct of {self.expected}"


def collect(fleet: list[Clone]) -> list[Values]:
    """The fleet's values by kind: what must be distinct, and complete."""
    cpus, clones = range(CPUS), len(fleet)
    uuids = CPUS * sum(len(clone.uuid_positions()) for clone in fleet)
    return [
        Values("GUIDs", clones, [clone.guid for clone in fleet]),
        Values("UUIDs", uuids, [uuid for clone in fleet for uuid in clone.uuids()]),
        Values("draws, all CPUs", DRAWS * CPUS * clones,
               [draw for clone in fleet for cpu in cpus for draw in clone.draws[cpu]]),
        *(Values(f"draws, CPU {cpu}", DRAWS * clones,
                 [draw for clone in fleet for draw in clone.draws[cpu]]) for cpu in cpus),
        Values("library, all CPUs", DRAWS * CPUS * clones,
               [number for clone in fleet for cpu in cpus for number in clone.numbers[cpu]]),
    ]


def find_faults(fleet: list[Clone]) -> list[str]:
    """One sentence for each thing that must not be, in a fleet that was restored."""
    faults = []
    for number, clone in enumerate(fleet, 1):
        if clone.generation != 1:
            faults.append(f"clone {number} has generation {clone.generation} instead of 1")
        if clone.state != "settled":
            faults.append(f"clone {number} is not settled after {clone.seconds:.0f} s: "
                          f"{clone.state}")
    for found in collect(fleet):
        if found.repeated:
            values = "value is" if len(found.repeated) == 1 else "values are"
            faults.append(f"{found.kind}: {len(found.repeated)} {values} there more than once, "
                          f"as {found.repeated[0]}")
        if len(found.values) != found.expected:
            faults.append(f"{found.kind}: {len(found.values)} values instead of {found.expected}")
    return faults


def boot(kernel: Kernel, logs: Path) -> Guest:
    """A settled guest with systemd, the overseer and the host's gate."""
    kernel = replace(kernel, patience=2, memory=640)
    image = userspace.make_systemd_image(kernel, userspace.PORT_MODULES, programs=True)
    guest = Guest(Options(kernel, image, guid=new_guid(), smp=CPUS, gate=True, **PREDICTABLE), logs)
    try:
        for path in userspace.PORT_MODULES:
            userspace.load_kernel_module(guest, path.rpartition("/")[2])
        guest.load_modules()
        guest.run("insmod /modules/draw_kernel.ko")
        guest.run("systemctl start sysgenidd; sysgenid wait-settled --timeout=100", 120)
    except BaseException:
        guest.kill()
        raise
    return guest


def ask(cpu: int) -> str:
    return f"/run/ask{cpu}"


def start_programs(guest: Guest) -> list[Program]:
    """Starts what draws: on each CPU a generator that uses the library, then the kernel's."""
    programs = []
    for cpu in range(CPUS):
        programs.append(guest.start(f"mkfifo {ask(cpu)} && exec taskset -c {cpu}"
                                    f" /test/example-prng <> {ask(cpu)}"))
        guest.run(f"until test -p {ask(cpu)}; do sleep 0.1; done; echo > {ask(cpu)}")
        programs[-1].wait_for("^[0-9a-f]{16}$")
    programs.append(guest.start("/test/draw_everywhere all"))
    programs[-1].wait_for("^drawing$")
    return programs


def wait_settled(clone: Guest) -> tuple[str, float]:
    """Returns the overseer's final state, from the host's example, and its time."""
    done = subprocess.run([userspace.WAIT_SETTLED, clone.gate, f"--timeout={PATIENCE}"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    states = [json.loads(line)["state"] for line in done.stdout.splitlines()]
    return states[-1] if states else "it says nothing", time.time()


def restored_at(clone: Guest) -> float:
    """When the clone's CPUs began to run, by QEMU's clock."""
    stamp = clone.qmp.wait_event("RESUME", 30)["timestamp"]
    return stamp["seconds"] + stamp["microseconds"] / 1e6


def show(clone: Guest, programs: list[Program]) -> dict:
    """Returns the draws of a clone's programs since the restore."""
    *generators, everywhere = [clone.program(program) for program in programs]
    for cpu in range(CPUS):
        clone.run(f"yes '' | head -n {DRAWS} > {ask(cpu)}")
    numbers = []
    for generator in generators:
        # The first is from before the snapshot.
        clone.channel.wait("random numbers", lambda copy=generator:
                           copy.output.count("\n") > DRAWS, 60)
        numbers.append(generator.output.split()[1:])
    if everywhere.wait(60):
        raise AssertionError(f"{clone.name}: the draws failed:\n{everywhere.output}")
    return {"numbers": numbers, "generation": clone.generation(),
            "draws": [re.findall(rf"^cpu {cpu} (\w{{32}})$", everywhere.output, re.M)
                      for cpu in range(CPUS)]}


def restore_some(snap: Snapshot, programs: list[Program], guids: list[str]) -> list[Clone]:
    """Restores clones with these GUIDs, which run at the same time."""
    with snap.restore_all(*guids) as clones, ThreadPoolExecutor(len(guids)) as pool:
        settled = [pool.submit(wait_settled, clone) for clone in clones]
        starts = [restored_at(clone) for clone in clones]
        shown = [show(clone, programs) for clone in clones]
        ends = [future.result() for future in settled]
    return [Clone(guid, state=state, seconds=end - start, **what)
            for guid, start, (state, end), what in zip(guids, starts, ends, shown)]


def restore(kernel: Kernel, guids: list[str], logs: Path,
            advance: Callable[[int], None]) -> list[Clone]:
    """Restores a fleet with these GUIDs; advance() is called with how many more are done."""
    guest = boot(kernel, logs)
    fleet: list[Clone] = []
    try:
        programs = start_programs(guest)
        with guest.snapshot() as snap:
            for first in range(0, len(guids), TOGETHER):
                some = restore_some(snap, programs, guids[first:first + TOGETHER])
                fleet += some
                advance(len(some))
    except BaseException:
        for member in guest.family():
            member.kill()
        raise
    return fleet


def plot(fleet: list[Clone], path: Path) -> None:
    """Draws the time that each clone took to settle, as SVG."""
    import matplotlib   # packages that only this program needs, and installs
    matplotlib.use("svg")
    from matplotlib import pyplot
    seconds = [clone.seconds for clone in fleet]
    median = statistics.median(seconds)
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.axhline(median, color="tab:gray", linestyle="--", label=f"median: {median:.1f} s")
    axes.plot(range(1, len(fleet) + 1), seconds, "o", label="one clone", gid="clones")
    axes.set(title=f"{len(fleet)} clones of one snapshot, {TOGETHER} at a time, {CPUS} CPUs each",
             xlabel="clone, in the order of the restores", ylabel="restore to settled (s)")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def summary(kernel: Kernel, fleet: list[Clone]) -> list[tuple[str, str]]:
    """Returns what was restored, and how much of it is distinct."""
    seconds = [clone.seconds for clone in fleet]
    return [
        ("clones", f"{len(fleet)} of one snapshot, {TOGETHER} at a time, {CPUS} CPUs each"),
        ("kernel", f"{kernel.release}, {accelerator()}"),
        ("one new generation", f"{sum(clone.generation == 1 for clone in fleet)} of {len(fleet)}"),
        *((found.kind, str(found)) for found in collect(fleet)),
        ("settled", f"{sum(clone.state == 'settled' for clone in fleet)} of {len(fleet)}"),
        ("restore to settled", f"median {statistics.median(seconds):.1f} s, "
         f"longest {max(seconds):.1f} s"),
        ("plot", str(PLOT.relative_to(host.ROOT))),
    ]


def as_json(kernel: Kernel, fleet: list[Clone]) -> str:
    """The summary for programs, with each clone's times and without the values drawn."""
    seconds = [clone.seconds for clone in fleet]
    return json.dumps({
        "clones": len(fleet), "together": TOGETHER, "cpus": CPUS,
        "kernel": kernel.release, "accelerator": accelerator(),
        "values": [{"kind": found.kind, "expected": found.expected, "found": len(found.values),
                    "distinct": len(set(found.values))} for found in collect(fleet)],
        "seconds": {"median": statistics.median(seconds), "longest": max(seconds)},
        "each": [{key: value for key, value in asdict(clone).items()
                  if key in ("guid", "generation", "state", "seconds")} for clone in fleet],
        "plot": str(PLOT.relative_to(host.ROOT)), "faults": find_faults(fleet),
    }, indent=1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="restore many clones of one snapshot")
    parser.add_argument("--clones", type=int, default=CLONES, help=f"how many ({CLONES})")
    parser.add_argument("--kernel", default=KERNEL, help=f"whose guests to clone ({KERNEL})")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    options = parser.parse_args()
    if options.clones < 2:
        parser.error(f"--clones {options.clones}: a fleet has 2 clones or more")
    return options


def main() -> None:
    options = parse()
    packages.install(packages.NEEDED + packages.FLEET)
    from tqdm import tqdm
    accelerator()
    build.prepare([options.kernel])
    kernel, logs = kernels.get(options.kernel), host.BUILD / "logs/fleet"
    with host.locked("fleet", host.BUILD / "locks"):
        shutil.rmtree(logs, ignore_errors=True)
        try:
            with tqdm(total=options.clones, unit="clone", desc="restoring") as bar:
                guids = [new_guid() for _ in range(options.clones)]
                fleet = restore(kernel, guids, logs, bar.update)
        except (GuestGone, QmpError, AssertionError) as error:
            raise host.SetupError(str(error)) from None
        shutil.rmtree(logs)
        plot(fleet, PLOT)
    if options.json:
        print(as_json(kernel, fleet))
    else:
        for name, value in summary(kernel, fleet):
            print(f"{name:<20}{value}")
    if faults := find_faults(fleet):
        raise host.SetupError("\n".join(["not as it should be:", *faults]))


if __name__ == "__main__":
    host.main(main)
