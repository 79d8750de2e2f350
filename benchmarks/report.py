"""Makes the table in benchmarks/README.md and the picture benchmarks/compare.svg of benchmarks/results.json.

`python benchmarks/report.py`; the picture needs matplotlib, for which `make bench` makes an environment.
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
# What is measured, its figure, how it is called, and whether more is better (else less).
ROWS = (
    ("noop-8", "rate", "no-op, 8 slots: events/s", 0),
    ("noop-8", "cpu_us", "… CPU µs per event", 0),
    ("wait-8", "rate", "a handler that waits 10 ms, 8 slots (ceiling 800/s)", 0),
    ("wait-100", "rate", "… 100 slots (ceiling 10,000/s)", 0),
    ("retry-8", "cpu_us", "fails once, again after 1 s: CPU µs per job", 0),
    ("publish-one", "rate", "confirmed publishing, one at a time: events/s", 0),
    ("publish-many", "rate", "… many at once", 0),
    ("latency", "p50_ms", "publish to handler at 200/s: p50 ms", 1),
    ("latency", "p99_ms", "… p99 ms", 1),
    ("idle", "start_seconds", "start to first job: s", 2),
    ("idle", "mb", "idle worker: MB", 0),
    ("backlog", "most_mb", "… with very many waiting, at most: MB", 0),
)
FAULTS = (
    ("loss-retry", "each fails once"),
    ("loss-sigkill", "kill -9 at full speed, and restart"),
    ("loss-connection", "connections cut"),
    ("loss-broker", "broker restarted"),
    ("loss-undecodable", "1 % is no JSON"),
)
ALONE = (
    ("database-8", "rate", "inbox, domain row, outbox, a transaction each: events/s"),
    ("database-8", "cpu_us", "… CPU µs per event"),
    ("database-shared", "rate", "… up to 16 that wait in one transaction, prefetch 64: events/s"),
    ("database-shared", "cpu_us", "… CPU µs per event"),
    ("inside-one", "rate", "confirmed publishing from inside a service, one at a time: events/s"),
    ("inside-many", "rate", "… many at once"),
    ("backlog-million", "waiting", "a very long backlog: events"),
    ("backlog-million", "before_mb", "… memory early: MB"),
    ("backlog-million", "most_mb", "… at most, while a twentieth is handled: MB"),
    *((f"batch-{n}", "rate", f"batch handler, {n} at a time: events/s") for n in (1, 10, 100, 1000)),
)
PANELS = (
    ("noop-8", "cpu_us", "CPU per event, no-op handler (µs)"),
    ("noop-8", "rate", "events a second, one process"),
    ("publish-many", "rate", "confirmed publishing, many at once (a second)"),
    ("latency", "p99_ms", "publish to handler at 200/s, p99 (ms)"),
)
Figures = dict[tuple[str, str, str], list[float]]


def main() -> None:
    """Write both."""
    kept = json.loads((HERE / "results.json").read_text())
    figures: Figures = defaultdict(list)
    for result in kept["results"]:
        for key, value in result.items():
            if key not in {"program", "what"}:
                figures[result["program"], result["what"], key].append(value)
    programs = list(dict.fromkeys(result["program"] for result in kept["results"] if result["program"] != "psycopg"))
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + BEGIN + "\n".join(_tables(kept["about"], programs, figures)) + "\n" + END + after)
    if "--no-picture" not in sys.argv:
        _picture(programs, figures)


def _cell(figures: Figures, program: str, what: str, key: str, digits: int) -> str:
    """The median, and the spread where there were several rounds."""
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
    lines += ["| lost / handled twice / dead-lettered, with a reason | " + " | ".join(programs) + " |"]
    lines += ["|---" * (len(programs) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(_loss(figures, program, what) for program in programs) + " |"
        for what, name in FAULTS
    ]
    lines += ["", "| wch alone | wch | bare psycopg |", "|---|---|---|"]
    lines += [
        f"| {name} | {_cell(figures, 'wch', what, key, 0)} | {_cell(figures, 'psycopg', what, key, 0)} |"
        for what, key, name in ALONE
    ]
    return lines


def _of_rounds(rounds: int) -> str:
    return "one round" if rounds == 1 else f"median of {rounds} rounds in turn (least–most)"


def _of_size(size: float) -> str:
    return "" if size == 1 else f", {size:.0%} of the full numbers of jobs"


def _loss(figures: Figures, program: str, what: str) -> str:
    found = {
        key: sum(figures.get((program, what, key), []))
        for key in ("lost", "twice", "dead_letters", "with_reason", "spoilt")
    }
    if (program, what, "lost") not in figures:
        return ""
    text = f"{found['lost']:.0f} / {found['twice']:.0f} / {found['dead_letters']:.0f}, {found['with_reason']:.0f}"
    return text + (f" of {found['spoilt']:.0f}" if found["spoilt"] else "")


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
