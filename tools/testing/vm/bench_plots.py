# SPDX-License-Identifier: GPL-2.0
"""Plots the figures of bench.py as SVG.

The background is transparent, and all colours are readable on a light and on a dark page.
"""
import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timeline

GREY, BLUE, ORANGE = "#777d86", "#2f81d8", "#d9730d"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif",
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "grid.color": GREY, "grid.alpha": 0.25,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium",
    "legend.frameon": False,
}
OURS = "this project"
# The calls to compare: the figure, its label, and whether it is this project's.
CALLS = (
    ("load_of_mapped_counter", "load of the mapped counter", True),
    ("check_by_libsysgenid", "libsysgenid: sysgenid_changed()", True),
    ("bare_system_call", "getppid()", False),
    ("read_without_news", "/dev/sysgenid: read()", True),
    ("eventfd_read_without_news", "eventfd: read()", False),
    ("poll", "/dev/sysgenid: poll()", True),
    ("eventfd_poll", "eventfd: poll()", False),
    ("get_generation", "SYSGENID_GET_GENERATION", True),
    ("sysfs_read", "sysfs: pread()", True),
    ("sysfs_open_read_close", "sysfs: open, read, close", True),
    ("draw_of_16_bytes_without_look", "getrandom(), 16 bytes", False),
    ("draw_of_16_bytes_with_look", "the same with the look", True),
)


@contextmanager
def figure(path: Path, *grid: int, size: tuple[float, float], title: str) -> Iterator:
    """Yields axes, in a figure that is then written to the path."""
    import matplotlib   # a package that only plots need
    matplotlib.use("svg")
    from matplotlib import pyplot
    with matplotlib.rc_context(STYLE):
        drawing, axes = pyplot.subplots(*grid, figsize=size, layout="constrained",
                                        sharex=True, sharey=True)
        drawing.suptitle(title, fontsize="large")
        yield axes
        drawing.savefig(path, metadata={"Date": None})
        pyplot.close(drawing)


def short(value: float) -> str:
    """Returns a number as in 950, 12.3k or 1.2M."""
    for unit, text in ((1e6, "M"), (1e3, "k")):
        if value >= unit * 9.995:
            return f"{value / unit:.0f}{text}"
        if value >= unit:
            return f"{value / unit:.1f}{text}"
    return f"{value:.0f}"


def draw_latencies(release: str, events: list[dict], path: Path) -> None:
    """Draws each restore's times as dots, with their median."""
    rows = list(dict.fromkeys((event["driver"], event["event"]) for event in events))
    jitter = random.Random(0)
    restores = min(len(event["us"]) for event in events)
    loads = list(dict.fromkeys(timeline.Load(event["cpus"], event["busy"]) for event in events))
    with figure(path, (len(loads) + 1) // 2, 2, size=(10, 0.8 + 1.5 * len(loads)),
                title="From the interrupt to the event: "
                f"Linux {release}, {restores} or more restores each") as grid:
        for axes, load in zip(grid.flat, loads):
            for event in events:
                if timeline.Load(event["cpus"], event["busy"]) != load:
                    continue
                row = rows.index((event["driver"], event["event"]))
                ours = event["driver"] == OURS
                median = statistics.median(event["us"])
                axes.plot([max(us, 1) for us in event["us"]], [row + jitter.uniform(-0.22, 0.22) for _ in event["us"]],
                          "o" if ours else "D", color=BLUE if ours else ORANGE, alpha=0.55,
                          markersize=4, markeredgewidth=0)
                axes.plot([max(median, 1)] * 2, [row - 0.36, row + 0.36], color=BLUE if ours else ORANGE,
                          linewidth=2)
                axes.text(1.0, row, f"{median:.0f}", va="center", ha="right", fontsize="small",
                          transform=axes.get_yaxis_transform())
            axes.set_title(str(load), loc="left")
            axes.set_title("median", loc="right", fontsize="small")
            axes.set_xscale("log")
            axes.grid(axis="x")
            axes.set_yticks(range(len(rows)), [
                event if driver == OURS else f"{event},\n{driver}" for driver, event in rows],
                fontsize="small")
            for label, (driver, _) in zip(axes.get_yticklabels(), rows):
                label.set_color(BLUE if driver == OURS else ORANGE)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        # The axes share their limits. The right margin is for the medians.
        most = max(event["us"][-1] for event in events)
        axes.set_xlim(1, most * 6)
        axes.invert_yaxis()
        for axes in grid.flat[-2:]:
            axes.set_xlabel("µs after the interrupt (1 µs: 1000 instructions)")


def draw_wake_ups(release: str, figures: dict[str, dict], path: Path) -> None:
    """Draws what a bump takes, by the number of watchers."""
    series = (("bump_visible_with_{}_watchers", "/dev/sysgenid: generation published", BLUE, "o-"),
              ("all_of_{}_watchers_woken", "/dev/sysgenid: all watchers woken", BLUE, "s--"),
              ("all_of_{}_eventfd_watchers_woken", "eventfd: all watchers woken", ORANGE, "D--"))
    with figure(path, 1, 1, size=(8, 4.6),
                title=f"Watchers in epoll, and the cost of an event: Linux {release}") as axes:
        for pattern, label, colour, style in series:
            before, after = pattern.split("{}")
            found = sorted((int(name[len(before):-len(after)]), figure["value"])
                           for name, figure in figures.items()
                           if name.startswith(before) and name.endswith(after)
                           and name[len(before):-len(after)].isdigit())
            axes.plot(*zip(*found), style, color=colour, label=label, markersize=5)
            axes.annotate(short(found[-1][1]), found[-1], xytext=(8, 6 if colour == BLUE else -6),
                          textcoords="offset points", va="center", color=colour)
        axes.set_xscale("symlog", linthresh=10, linscale=0.5)
        axes.set_yscale("log")
        axes.set_xlim(-1, 300000)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set(xlabel="watchers", ylabel="instructions")
        axes.grid()
        axes.legend(loc="upper left", labelcolor=GREY)


def draw_calls(release: str, figures: dict[str, dict], path: Path) -> None:
    """Draws the cost of each call as a bar."""
    calls = [(figures[name]["value"], label, ours) for name, label, ours in CALLS
             if name in figures]
    values, labels, ours = zip(*calls)
    with figure(path, 1, 1, size=(8, 4.6),
                title=f"The cost of one call: Linux {release}") as axes:
        bars = axes.barh(labels, values, color=[BLUE if own else ORANGE for own in ours])
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=4, color=GREY)
        axes.set_xscale("log")
        axes.set_xlim(1, max(values) * 3)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("instructions (blue: this project)")
        axes.tick_params(axis="y", length=0)


def draw(result: dict, directory: Path) -> list[Path]:
    """Draws the plots of the kernels whose latencies were measured; returns the files."""
    drawn = []
    for kernel, events in result["latencies"].items():
        release, figures = result["releases"][kernel], result["figures"][kernel]
        for name, function, what in (("latency", draw_latencies, events),
                                     ("wake-ups", draw_wake_ups, figures),
                                     ("calls", draw_calls, figures)):
            drawn.append(directory / f"{name}.svg")
            function(release, what, drawn[-1])
    return drawn
