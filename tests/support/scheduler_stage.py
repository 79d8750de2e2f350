"""The scheduler with a file of the test's own; the requests it publishes go to a queue of the test's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import yaml
from pydantic import SecretStr

from support.collected import Collected
from support.stage import RunningService, Stage
from support.waiting import eventually
from support.whatsapp_stage import HASH_KEY
from wch_common.broker.topology import Topology
from wch_common.settings import QueueSettings, changed_policy
from wch_scheduler.main import compose
from wch_scheduler.settings import SchedulerSettings
from wch_scheduler.ticks import event_id
from wch_scheduler.topology import TOPOLOGY

CLEANUP = "carts.cleanup.requested.v1"
SHORT = {work.name.upper().replace(".", "_"): QueueSettings(retry_delays=(1,)) for work in TOPOLOGY.work_queues}
SHORT_TOPOLOGY = Topology(
    tuple(replace(work, policy=changed_policy(work.name, work.policy, SHORT)) for work in TOPOLOGY.work_queues)
)


class SchedulerStage:
    """Everything the scheduler needs, on loopback."""

    def __init__(self, stage: Stage, database_url: str, folder: Path) -> None:
        self.stage = stage
        self.database_url = database_url
        self.file = folder / "schedules.yaml"
        # Half an hour away in both directions, so that no planned time passes while a test runs.
        self.last_hourly = (datetime.now(UTC) - timedelta(minutes=30)).replace(second=0, microsecond=0)
        self.hourly = {"cron": f"{self.last_hourly.minute} * * * *"}
        self._schema = stage.schema(database_url, "scheduler")
        self._collected = Collected(stage)
        stage.declare(SHORT_TOPOLOGY)
        stage.follow("published", "carts.#", exchange="wch.requests")
        stage.follow("facts", "scheduler.#")

    def write(self, file: Path | None = None, /, **schedules: dict[str, Any]) -> Path:
        """Write the file of schedules, each for a cleanup unless it says otherwise."""
        entries = {name.replace("_", "-"): {"event": CLEANUP} | entry for name, entry in schedules.items()}
        target = file or self.file
        target.write_text(yaml.safe_dump({"schedules": entries}))
        return target

    def start(self, **changes: Any) -> RunningService:
        """Start the service in this process."""
        own: dict[str, Any] = {"database_url": SecretStr(self.database_url), "person_hash_key": SecretStr(HASH_KEY)}
        own |= {"schedules_file": self.file, "queues": SHORT}
        values = own | {"scheduler_requesters": {self.user: ["carts.*"]}} | changes
        service = RunningService(self.stage.url, compose, values, name="scheduler", settings_type=SchedulerSettings)
        self.stage.services.append(service)
        return service.start()

    @property
    def user(self) -> str:
        """The AMQP user of the tests."""
        return urlsplit(self.stage.url).username or ""

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """The complete facts about timers so far, by the beginning of their kind."""
        return self._collected.events("facts", f"scheduler.timer.{kind}")

    def await_fact(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for this many facts about timers and return the data of the last."""
        return self._collected.await_data("facts", f"scheduler.timer.{kind}", number)[number - 1]

    def await_answer(self, kind: str, number: int = 1) -> dict[str, Any]:
        """Wait for this many facts of a kind, like `schedule.paused`, and return the data of the last."""
        return self._collected.await_data("facts", f"scheduler.{kind}", number)[number - 1]

    def published(self) -> list[dict[str, Any]]:
        """The complete requests that the scheduler has published so far."""
        return self._collected.events("published")

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [event["id"] for event in self.published()]

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Query the service's schema; without tables the result is empty."""
        try:
            return self._schema.rows(statement, *values)
        except psycopg.errors.UndefinedTable:
            return []

    def row(self, name: str) -> dict[str, Any]:
        """The row of a schedule, or an empty dict."""
        try:
            return next(iter(self._schema.dicts("SELECT * FROM schedules WHERE name = %s", name)), {})
        except psycopg.errors.UndefinedTable:
            return {}

    def await_row(self, name: str) -> dict[str, Any]:
        """Wait until a schedule is known."""
        return eventually(lambda: self.row(name), f"{name} is known")

    def ticks(self, name: str) -> list[datetime]:
        """The planned times at which a schedule was published."""
        rows = self.query("SELECT planned FROM ticks WHERE schedule = %s AND kind = 'scheduled' ORDER BY planned", name)
        return [row[0] for row in rows]

    def expected(self, name: str, shop: str = "") -> list[str]:
        """The ids of the events of those times."""
        return [event_id(name, planned.astimezone(UTC), shop) for planned in self.ticks(name)]
