# SPDX-License-Identifier: GPL-2.0
"""Measures the device's costs and the time from an event to user space.

Costs are in instructions, on each kernel, and have limits. Times are those of this
project's driver and of the kernel's own. `make bench` prints all figures, and writes them
and their plots to build/bench/. `make bench-check` compares them with bench-reference.json.
"""
import argparse
import json
import re
import shutil
import statistics
from pathlib import Path

import bench_openssl
import bench_plots
import timeline
from harness import acpi_tables, build, host, kernels, packages
from harness.channel import GuestGone
from harness.guest import Guest, Options
from harness.kernels import Kernel
from harness.qmp import QmpError
from harness.tap import failures

FIGURE = re.compile(r"^# (\w+) (\d+) (instructions|bytes|times)$", re.M)
REFERENCE = Path(__file__).with_name("bench-reference.json")
OUTPUT = host.BUILD / "bench"
# The kernel whose latencies are measured; it has a driver of its own.
LATENCY_KERNEL = "6.12-cloud"
RESTORES = 20
LOADS = [timeline.Load(cpus, busy) for cpus in (1, 2) for busy in (False, True)]
OURS, THEIRS, BESIDE = "this project", "the kernel's own", "the kernel's own, beside this"
# bench.c has the limits that hold for all kernels.
LIMITS = {"6.1-cloud": {"wake_up_of_a_watcher": 220}}
MOST_MORE_LOADS = 8
# A figure that is worse than the reference by more than this part fails.
TOLERANCE = 0.03
# The longest of many samples does not repeat; bench.c limits it.
UNREPEATABLE = "longest_"
# The kernel's worker wakes the watchers. How soon it runs differs by so many instructions
# from one boot to the next.
WORKER = ("all_of_", 2000)


def loads(function: str) -> int:
    """Returns the number of instructions of bench.c's function that load from memory."""
    code = host.run(["objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}",
                     build.PROGRAMS / "sysgenid/bench"], f"disassembling {function}")
    return len(re.findall(r"\t(?:mov\w* +[^,]*\(\S*\),%|cmp\w* .*\()", code))


def figures_of_loads() -> dict[str, dict]:
    """Returns how often the in-line checks load from memory, at most."""
    return {name: {"value": loads(function), "unit": "loads"} for name, function in
            (("loads_of_one_word_check", "one_word_changed"),
             ("loads_of_libsysgenid_check", "library_changed"))}


def beyond_limits(kernel: str, figures: dict[str, dict]) -> list[str]:
    """Returns a sentence for each figure over a limit that bench.c does not know."""
    wrong = [f"{name}: {figures[name]['value']}, over its limit of {most}"
             for name, most in LIMITS.get(kernel, {}).items()
             if figures.get(name, {"value": 0})["value"] > most]
    more = (figures["loads_of_libsysgenid_check"]["value"]
            - figures["loads_of_one_word_check"]["value"])
    if more > MOST_MORE_LOADS:
        wrong.append(f"the check by libsysgenid has {more} loads more, over its limit of "
                     f"{MOST_MORE_LOADS}")
    return wrong


def measure(kernel: Kernel, logs: Path) -> tuple[dict[str, dict], list[str]]:
    """Returns a kernel's figures by name, and the failures."""
    logs.mkdir(parents=True, exist_ok=True)
    table = acpi_tables.compiled(acpi_tables.WRITABLE_DEVICE, logs)
    options = Options(kernel, build.image(kernel), memory=256, icount=True, seconds=600,
                      acpi=acpi_tables.archive(logs, table), append=acpi_tables.KEEP_WRITABLE)
    with Guest(options, logs) as guest:
        guest.load_modules()
        run = guest.start("/test/bench")
        status = run.wait(500)
    wrong = failures(run.output)
    if status and not wrong:
        wrong = [f"bench ended with {status}:", *run.output.splitlines()[-20:]]
    figures = {name: {"value": int(value), "unit": unit}
               for name, value, unit in FIGURE.findall(run.output)} | figures_of_loads()
    return figures, wrong + beyond_limits(kernel.name, figures)


def latencies(kernel: Kernel, logs: Path, load: timeline.Load) -> list[dict]:
    """Returns the time of each event in each restore, in µs after the interrupt."""
    def measured(modules: bool, *sleepers: str) -> list[dict[str, float]]:
        name = re.sub(r"\W+", "-", f"{load} {sleepers or 'loops'} {modules}")
        return list(timeline.restores(kernel, logs / name, modules, load=load, number=RESTORES,
                                      sleepers=sleepers))

    def event(driver: str, text: str, times: list[dict[str, float]], step: str) -> dict:
        if missing := sum(step not in restore for restore in times):
            raise AssertionError(f"{load}, {driver}: {text}: not seen in {missing} restores")
        return {"cpus": load.cpus, "busy": load.busy, "driver": driver, "event": text,
                "us": sorted(round(restore[step], 1) for restore in times)}
    looking, sleeping, without = measured(True), measured(True, "poll"), measured(False)
    return [
        event(OURS, "CSPRNG reseeded", looking, "crng_reseed"),
        event(OURS, "mapped counter read", looking, "counter"),
        event(OURS, "poll() returned", sleeping, "poll"),
        event(THEIRS, "CSPRNG reseeded", without, "crng_reseed"),
        event(THEIRS, "vmfork notified", without, "notified"),
        event(BESIDE, "vmfork notified", looking, "notified"),
    ]


def measure_all(names: list[str]) -> tuple[dict, list[str]]:
    """Returns all figures of these kernels as in the JSON, and the failures."""
    result: dict = {"releases": {}, "figures": {}, "latencies": {}}
    wrong = []
    for name in names:
        kernel, logs = kernels.get(name), host.BUILD / f"logs/bench-{name}"
        shutil.rmtree(logs, ignore_errors=True)
        host.progress(f"measuring costs with {name}")
        result["releases"][name] = kernel.release
        result["figures"][name], complaints = measure(kernel, logs)
        wrong += [f"{name}: {complaint}" for complaint in complaints]
        if name == LATENCY_KERNEL:
            result["latencies"][name] = []
            for load in LOADS:
                host.progress(f"measuring times with {name}, {load}")
                result["latencies"][name] += latencies(kernel, logs, load)
    return result, wrong


def repeatable(result: dict) -> dict[str, tuple[float, float]]:
    """Returns, by name, the figures that repeat on any machine, and their resolution.

    The moment of a restore changes when the kernel's own driver does its work, when a busy
    guest schedules a program, and which of two CPUs has its turn. So only the median of an
    idle guest with one CPU repeats.
    """
    found = {f"{kernel}: {name}": (figure["value"], WORKER[1] * name.startswith(WORKER[0]))
             for kernel, figures in result["figures"].items()
             for name, figure in figures.items() if not name.startswith(UNREPEATABLE)}
    for kernel, events in result["latencies"].items():
        for event in events:
            if event["driver"] == OURS and not event["busy"] and event["cpus"] == 1:
                name = f"{kernel}: {event['event']}, {timeline.Load(1, False)}"
                found[name] = statistics.median(event["us"]), timeline.RESOLUTION
    return found


def compare(reference: dict, result: dict) -> list[str]:
    """Returns a sentence for each figure that is worse than the reference, or missing."""
    worse = []
    measured = repeatable(result)
    for name, (before, resolution) in repeatable(reference).items():
        kernel = name.partition(":")[0]
        if kernel not in result["figures"]:
            continue
        releases = [found["releases"][kernel] for found in (reference, result)]
        other = ("" if len(set(releases)) == 1 else
                 f" (Linux {releases[1]} instead of {releases[0]})")
        now = measured.get(name, (None,))[0]
        if now is None:
            worse.append(f"{name}: not measured{other}")
        elif now > before * (1 + TOLERANCE) + resolution:
            more = f", {now / before - 1:+.1%}" if before else ""
            worse.append(f"{name}: {now:g} instead of {before:g}{more}{other}")
    return worse


def show_figures(figures: dict[str, dict]) -> None:
    """Prints the costs of all kernels side by side."""
    print(f"{'':<36}" + "".join(f"{name:>12}" for name in figures))
    for name, unit in dict.fromkeys((name, figure["unit"]) for found in figures.values()
                                    for name, figure in found.items()):
        values = "".join(f"{found[name]['value'] if name in found else '-':>12}"
                         for found in figures.values())
        print(f"{name.replace('_', ' '):<36}{values}  {unit}")


def show_latencies(kernel: str, events: list[dict]) -> None:
    """Prints the times from the interrupt to each event."""
    print(f"{f'{kernel}, µs after the interrupt':<48}"
          + "".join(f"{str(load):>14}" for load in LOADS))
    cells: dict[str, list[str]] = {}
    for event in events:
        cells.setdefault(f"{event['driver']}: {event['event']}", []).append(
            f"{statistics.median(event['us']):.0f} ≤ {event['us'][-1]:.0f}")
    for name, values in cells.items():
        print(f"{name:<48}" + "".join(f"{value:>14}" for value in values))
    print("median ≤ longest; 1 µs is 1000 instructions")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measure costs and latencies")
    parser.add_argument("kernels", nargs="*", default=list(kernels.FULL), metavar="KERNEL",
                        help=f"by default {' '.join(kernels.FULL)}")
    parser.add_argument("--check", action="store_true",
                        help=f"fail if a figure is over {TOLERANCE:.0%} worse than the reference")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def main() -> None:
    options = parse()
    packages.install(packages.NEEDED + packages.PLOTS)
    build.prepare(options.kernels, only="sysgenid")
    try:
        with host.locked("bench", host.BUILD / "locks"):
            result, wrong = measure_all(options.kernels)
    except (GuestGone, QmpError, AssertionError) as error:
        raise host.SetupError(str(error)) from None
    if not options.check:
        result["openssl"] = bench_openssl.measure()
    text = json.dumps(result, indent=1, ensure_ascii=False)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "bench.json").write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
    else:
        show_figures(result["figures"])
        for kernel, events in result["latencies"].items():
            show_latencies(kernel, events)
        if "openssl" in result:
            bench_openssl.show(result["openssl"])
    for path in bench_plots.draw(result, OUTPUT):
        host.progress(f"plotted {path.relative_to(host.ROOT)}")
    if options.check:
        wrong += compare(json.loads(REFERENCE.read_text(encoding="utf-8")), result)
    if wrong:
        raise host.SetupError("\n".join(["the benchmark failed:", *wrong]))


if __name__ == "__main__":
    host.main(main)
