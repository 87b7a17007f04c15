# SPDX-License-Identifier: GPL-2.0
"""`make bench-check` finds what is worse than the reference, and the plots are complete."""
import copy
import json
import xml.etree.ElementTree

import pytest

import bench
import bench_plots
import timeline
from harness import packages

KERNEL = bench.LATENCY_KERNEL
TRACE = """\
# tracer: function
          <idle>-0       [000] d.h1.     9.999900: irq_default_primary_handler <-before
     kworker/0:1-12      [000] .....    10.000050: crng_reseed <-process_one_work
        timeline-88      [000] d.h1.    10.000100: irq_default_primary_handler <-interrupt
        timeline-88      [000] d.h2.    10.000103: crng_reseed <-reseed
     kworker/0:1-12      [000] .....    10.000140: add_vmfork_randomness <-notify
     kworker/1:1-13      [001] .....    10.000141: blocking_notifier_call_chain <-another
     kworker/0:1-12      [000] .....    10.000150: crng_reseed <-add_vmfork_randomness
     kworker/0:1-12      [000] .....    10.000155: blocking_notifier_call_chain <-notify
"""


@pytest.fixture(scope="module")
def reference() -> dict:
    return json.loads(bench.REFERENCE.read_text(encoding="utf-8"))


@pytest.fixture
def result(reference) -> dict:
    """The figures of the reference, to be changed."""
    return copy.deepcopy(reference)


def test_figure_within_tolerance_passes(reference, result):
    for figures in result["figures"].values():
        for figure in figures.values():
            figure["value"] *= 1 + bench.TOLERANCE
    assert not bench.compare(reference, result)


def test_better_figure_passes(reference, result):
    for event in result["latencies"][KERNEL]:
        event["us"] = [0.0]
    assert not bench.compare(reference, result)


def test_each_worse_figure_is_named(reference, result):
    worse = set()
    for kernel, figures in result["figures"].items():
        for name, figure in figures.items():
            figure["value"] *= 1.04
            if name.startswith(bench.WORKER[0]):
                figure["value"] += bench.WORKER[1]
            if not name.startswith(bench.UNREPEATABLE):
                worse.add(f"{kernel}: {name}")
    complaints = bench.compare(reference, result)
    assert {text.rpartition(":")[0] for text in complaints} == worse
    assert all("+4.0%" in text for text in complaints if bench.WORKER[0] not in text)


def test_worse_latency_of_idle_guest_is_named(reference, result):
    for event in result["latencies"][KERNEL]:
        event["us"] = [1.04 * us + timeline.RESOLUTION for us in event["us"]]
    complaints = bench.compare(reference, result)
    assert {text.rpartition(":")[0] for text in complaints} == {
        f"{KERNEL}: {event['event']}, 1 CPU, idle" for event in reference["latencies"][KERNEL]
        if event["driver"] == bench.OURS}
    assert len(complaints) >= 3


def test_figure_of_zero_in_reference_has_no_percentage(reference, result):
    for event in reference["latencies"][KERNEL]:
        event["us"] = [0.0]
    complaints = bench.compare(reference, result)
    assert complaints and not any("%" in text for text in complaints)


def test_missing_figure_is_named_with_kernels_release(reference, result):
    del result["figures"][KERNEL]["poll"]
    result["releases"][KERNEL] = "6.12.999"
    assert bench.compare(reference, result) == [
        f"{KERNEL}: poll: not measured (Linux 6.12.999 instead of "
        f"{reference['releases'][KERNEL]})"]


def test_kernel_that_was_not_measured_is_left_out(reference, result):
    del result["figures"]["6.1-cloud"]
    assert not bench.compare(reference, result)


def test_limits_are_asserted(reference):
    for kernel, limits in bench.LIMITS.items():
        figures = copy.deepcopy(reference["figures"][kernel])
        assert not bench.beyond_limits(kernel, figures)
        for name, most in limits.items():
            figures[name]["value"] = most + 1
        figures["loads_of_libsysgenid_check"]["value"] = (
            figures["loads_of_one_word_check"]["value"] + bench.MOST_MORE_LOADS + 1)
        assert len(bench.beyond_limits(kernel, figures)) == len(limits) + 1


def test_trace_yields_first_time_of_each_step_after_restore():
    times = timeline.traced(TRACE, 10_000_000)
    assert {step: round(times[step]) - 10_000_000 for step in ("start", "crng_reseed", "notified")
            } == {"start": 100, "crng_reseed": 103, "notified": 155}


def test_plots_show_both_drivers_titles_and_units(reference, tmp_path):
    packages.install(packages.PLOTS)
    texts = {}
    for path in bench_plots.draw(reference, tmp_path):
        drawn = xml.etree.ElementTree.parse(path)
        texts[path.stem] = " ".join(
            node.text for node in drawn.iter("{http://www.w3.org/2000/svg}text"))
    release = reference["releases"][KERNEL]
    assert len(texts) == 3 and all(f"Linux {release}" in text for text in texts.values())
    for word in ("CSPRNG reseeded", "mapped counter read", "vmfork notified", "µs",
                 "the kernel's own", "1 CPU, idle", "1 CPU, busy"):
        assert word in texts["latency"]
    for word in ("/dev/sysgenid", "eventfd", "100,000", "watchers", "instructions"):
        assert word in texts["wake-ups"]
    assert all(label in texts["calls"] for _, label, _ in bench_plots.CALLS)
