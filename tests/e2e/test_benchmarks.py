"""The comparison with other libraries, with small numbers and only for programs that need no environment of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wch_local.leftovers import MARK, end_leftovers
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread

ROOT = Path(__file__).parents[2]
# Ends a comparison that hangs, with the line at which it waits; a slow machine does not take as long.
HANGS_SECONDS = 3000


def compare(folder: Path, *words: str) -> str:
    """Run the comparison to its end and return what it prints; everything it starts is ended."""
    command = [sys.executable, "-X", "faulthandler", str(ROOT / "benchmarks/compare.py"), *words]
    environment = {**os.environ, MARK: str(folder)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        printed, _ = process.communicate(timeout=HANGS_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it prints where it is
        end_leftovers(folder)
        printed, _ = process.communicate()
    finally:
        end_leftovers(folder)
    assert process.returncode == 0, printed
    return printed


@pytest.mark.timeout(HANGS_SECONDS + 300)
def test_the_comparison_runs_and_keeps_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    what = ["noop-8", "publish-many", "latency", "loss-sigkill", "loss-undecodable", "database-shared"]
    small = ["--rounds", "1", "--size", "0.02", "--limit", str(HANGS_SECONDS // 2), "--only", "wch", "pika"]
    printed = compare(tmp_path, *small, "--out", str(out), "--what", *what)
    kept = json.loads(out.read_text())
    results = {(one["program"], one["what"]): one for one in kept["results"]}
    assert {name for _, name in results} == set(what), printed
    assert kept["about"]["rabbitmq"]
    assert results["wch", "noop-8"]["twice"] == 0
    for fault in ("sigkill", "undecodable"):
        assert results["wch", f"loss-{fault}"]["lost"] == 0
    spoilt = results["wch", "loss-undecodable"]
    assert spoilt["dead_letters"] == spoilt["with_reason"] == spoilt["spoilt"] > 0
    assert results["pika", "loss-undecodable"]["dead_letters"] == 0


def test_a_benchmark_refuses_to_measure_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from measuring import running

    with InThread(GraphSimulator()) as there:
        url = f"{there.url}/_simulator/journal?path=none"
        with pytest.raises(RuntimeError, match="answers at"), running(["-c", "pass"], url):
            pass
