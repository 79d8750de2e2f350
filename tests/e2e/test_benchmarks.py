"""The comparison with other libraries, with small numbers and only for programs that need no environment of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread

ROOT = Path(__file__).parents[2]


def test_the_comparison_runs_and_keeps_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    what = ["noop-8", "publish-many", "latency", "loss-sigkill", "loss-undecodable", "database-shared"]
    command = [sys.executable, str(ROOT / "benchmarks/compare.py"), "--rounds", "1", "--size", "0.02"]
    command += ["--only", "wch", "pika", "--out", str(out), "--what", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kept = json.loads(out.read_text())
    results = {(one["program"], one["what"]): one for one in kept["results"]}
    assert {name for _, name in results} == set(what)
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
