"""WireMock, a third-party server from npm that injects faults and keeps a journal of its requests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from support.ports import own_port
from support.waiting import PATIENCE_SECONDS, eventually

if TYPE_CHECKING:
    from types import TracebackType


def jar() -> Path | None:
    """Return the path where `make develop` has installed WireMock, or None."""
    return next(Path(sys.prefix).glob("wiremock/node_modules/wiremock/build/wiremock-standalone-*.jar"), None)


class WireMock:
    """One server on loopback while the block runs."""

    def __init__(self, program: Path, folder: Path) -> None:
        port = own_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = (folder / "wiremock.log").open("wb")
        command = ["java", "-jar", str(program), "--port", str(port), "--bind-address", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "--root-dir", str(folder), "--disable-banner"], stdout=self._log, stderr=self._log
        )
        self._admin = httpx.Client(base_url=f"{self.url}/__admin", timeout=30)

    def __enter__(self) -> Self:
        def ready() -> bool:
            try:
                return self._admin.get("/health").is_success
            except httpx.TransportError:
                return False

        eventually(ready, "WireMock answers")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._admin.close()
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)
        self._log.close()

    def answer(self, to: str, *responses: dict[str, Any]) -> None:
        """Answer messages to one recipient with these responses in order; the last one repeats."""
        for place, response in enumerate(responses):
            last = place == len(responses) - 1
            mapping = {
                "request": {"method": "POST", "bodyPatterns": [{"matchesJsonPath": f"$[?(@.to == '{to}')]"}]},
                "response": response,
                "scenarioName": to,
                "requiredScenarioState": "Started" if not place else f"step {place}",
                **({} if last else {"newScenarioState": f"step {place + 1}"}),
            }
            self._admin.post("/mappings", json=mapping).raise_for_status()

    def bodies(self) -> list[dict[str, Any]]:
        """Return the bodies of the requests in its journal."""
        rows = self._admin.get("/requests").raise_for_status().json()["requests"]
        return [httpx.Response(200, text=row["request"]["body"]).json() for row in rows]
