"""Writes the tables in benchmarks/README.md and the picture benchmarks/compare.svg from benchmarks/results.json.

Run `python benchmarks/report.py`. The picture needs matplotlib, which `make bench` installs in .bench/report; `--no-picture` skips it.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- compared -->\n", "<!-- /compared -->\n"
# The measurement, its figure, its label, and the decimal places.
ROWS = (
    ("noop-8", "rate", "no-op, 8 slots: events/s", 0),
    ("noop-8", "cpu_us", "… CPU µs per event", 0),
    ("wait-8", "rate", "10 ms handler, 8 slots (ceiling 800/s): events/s", 0),
    ("wait-100", "rate", "… 100 slots (ceiling 10,000/s)", 0),
    ("retry-8", "cpu_us", "every job fails once, retry after 1 s: CPU µs per job", 0),
    ("publish-one", "rate", "confirmed publishing, one at a time: events/s", 0),
    ("publish-many", "rate", "… many at once", 0),
    ("latency", "p50_ms", "publish to handler at 200/s: p50 ms", 1),
    ("latency", "p99_ms", "… p99 ms", 1),
    ("idle", "start_seconds", "start to first job: s", 2),
    ("idle", "mb", "idle worker: MB", 0),
    ("backlog", "most_mb", "… with a long backlog, at most: MB", 0),
)
FAULTS = (
    ("loss-retry", "every job fails once"),
    ("loss-sigkill", "kill -9 at full speed, then restart"),
    ("loss-connection", "broker closes the connections"),
    ("loss-broker", "broker restarts"),
    ("loss-undecodable", "1 % of the messages are not JSON"),
)
WCH_ONLY = (
    ("database-8", "rate", "inbox, domain row and outbox, one transaction per event: events/s"),
    ("database-8", "cpu_us", "… CPU µs per event"),
    ("database-shared", "rate", "… up to 16 events per shared transaction, prefetch 64: events/s"),
    ("database-shared", "cpu_us", "… CPU µs per event"),
    ("inside-one", "rate", "confirmed publishing from inside a service, one at a time: events/s"),
    ("inside-many", "rate", "… many at once"),
    ("backlog-million", "waiting", "very long backlog: events"),
    ("backlog-million", "before_mb", "… memory after the first hundredth: MB"),
    ("backlog-million", "most_mb", "… at most, until a twentieth is handled: MB"),
    *((f"batch-{n}", "rate", f"batch handler, {n} at a time: events/s") for n in (1, 10, 100, 1000)),
)
PANELS = (
    ("noop-8", "cpu_us", "CPU per event, no-op handler (µs)"),
    ("noop-8", "rate", "no-op handler, one process (events/s)"),
    ("publish-many", "rate", "confirmed publishing, many at once (events/s)"),
    ("latency", "p99_ms", "publish to handler at 200/s, p99 (ms)"),
)
Figures = dict[tuple[str, str, str], list[float]]


def main() -> None:
    """Write the tables and, unless `--no-picture` is given, the picture."""
    results = json.loads((HERE / "results.json").read_text())
    figures: Figures = defaultdict(list)
    for result in results["results"]:
        for key, value in result.items():
            if key not in {"program", "what"}:
                figures[result["program"], result["what"], key].append(value)
    programs = list(dict.fromkeys(result["program"] for result in results["results"] if result["program"] != "psycopg"))
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + BEGIN + "\n".join(_tables(results["about"], programs, figures)) + "\n" + END + after)
    if "--no-picture" not in sys.argv:
        _picture(programs, figures)


def _cell(figures: Figures, program: str, what: str, key: str, digits: int) -> str:
    """Return the median, with the range if there are several rounds."""
    values = figures.get((program, what, key))
    if not values:
        return ""
    text = f"{median(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _tables(about: dict[str, Any], programs: list[str], figures: Figures) -> list[str]:
    lines = [
        (
            f"{about['date']}, {about['machine']}, Python {about['python']}, RabbitMQ {about['rabbitmq']}, PostgreSQL {about['postgresql']}; "
            f"{_of_rounds(about['rounds'])}{_of_size(about['size'])}. {'; '.join(about['versions'].values())}."
        ),
        "",
        "| | " + " | ".join(programs) + " |",
        "|---" * (len(programs) + 1) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(_cell(figures, program, what, key, digits) for program in programs) + " |"
        for what, key, name, digits in ROWS
    ]
    lines += ["", *(f"- {program}: {remark}." for program, remark in about["remarks"].items()), ""]
    lines += ["| lost / handled twice / dead-lettered, of these with a reason | " + " | ".join(programs) + " |"]
    lines += ["|---" * (len(programs) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(_loss(figures, program, what) for program in programs) + " |"
        for what, name in FAULTS
    ]
    lines += ["", "| wch only | wch | bare psycopg |", "|---|---|---|"]
    lines += [
        f"| {name} | {_cell(figures, 'wch', what, key, 0)} | {_cell(figures, 'psycopg', what, key, 0)} |"
        for what, key, name in WCH_ONLY
    ]
    return lines


def _of_rounds(rounds: int) -> str:
    return "one round" if rounds == 1 else f"median of {rounds} interleaved rounds (minimum–maximum)"


def _of_size(size: float) -> str:
    return "" if size == 1 else f", {size:.0%} of the full job counts"


def _loss(figures: Figures, program: str, what: str) -> str:
    sums = {
        key: sum(figures.get((program, what, key), []))
        for key in ("lost", "twice", "dead_letters", "with_reason", "spoilt")
    }
    if (program, what, "lost") not in figures:
        return ""
    text = f"{sums['lost']:.0f} / {sums['twice']:.0f} / {sums['dead_letters']:.0f}, {sums['with_reason']:.0f}"
    return text + (f" of {sums['spoilt']:.0f}" if sums["spoilt"] else "")


def _picture(programs: list[str], figures: Figures) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "wch"
    plot, axes = plt.subplots(2, 2, figsize=(10, 6))
    for axis, (what, key, title) in zip(axes.flat, PANELS, strict=True):
        values = [median(figures.get((program, what, key), [0.0])) for program in programs]
        colours = ["#0a7d55" if program.startswith("wch") else "#b9c2c9" for program in programs]
        bars = axis.barh(programs, values, color=colours)
        axis.bar_label(bars, fmt="{:,.0f}", padding=3)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    plot.tight_layout()
    plot.savefig(HERE / "compare.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
