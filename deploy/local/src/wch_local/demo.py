"""`make demo`: starts a broker, a database, simulators and the services, publishes events, and shows their progress."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.live import Live
from rich.table import Table

from wch_common.broker.blocking.dead_letters import open_mailbox
from wch_common.client import Client
from wch_common.errors import WchError
from wch_local import demo_progress
from wch_local.leftovers import end_leftovers, mark_children
from wch_local.postgres import EmbeddedServer
from wch_local.programs import Program
from wch_local.provide import ProvidedBroker, end_broker, end_containers, provide_broker, running_broker
from wch_local.rabbitmq import LocalBrokerError, free_port
from wch_local.story import (
    ACCOUNT,
    CAMPAIGN,
    CART,
    CATALOG,
    CUSTOMER,
    GOOD,
    OPTED_OUT,
    SHOPPER,
    add_templates,
    campaign,
    fill,
    order,
    publish,
    schedules,
    to_one,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path(".wch").resolve()
STATE = FOLDER / "demo.json"
VHOST = "wch-demo"

DLQ, UNROUTABLE = "sync.product.dlq", "wch.unroutable"
SCHEDULES = FOLDER / "schedules.yaml"
RETRY_DELAYS = "2,4,8"
NUMBER, HASH_KEY = "2002", "the demo's own key"
_STORY_SECONDS = 90
_REPORT_SECONDS = 3.0
_INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

console = Console(highlight=False)


@dataclass
class Stage:
    """The running processes, kept in a file for `make down`."""

    broker: dict[str, Any] = field(default_factory=dict)
    database: dict[str, Any] = field(default_factory=dict)
    programs: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False
    """Whether the demo reached its end, so that everything may keep running."""

    @classmethod
    def read(cls) -> Stage:
        """Return what the last demo left running."""
        return cls(**json.loads(STATE.read_text())) if STATE.exists() else cls()

    def write(self) -> None:
        """Write the file, which contains the password of the private broker."""
        FOLDER.mkdir(exist_ok=True)
        STATE.touch(mode=0o600)
        STATE.write_text(json.dumps(vars(self), indent=1))

    def stop_programs(self) -> list[str]:
        """Stop services and simulators; returns their names."""
        stopped = [one["name"] for one in self.programs if Program(**one).stop()]
        self.programs = []
        return stopped


def say(text: str) -> None:
    """Print what happens."""
    console.print(f"[dim]·[/] {text}", soft_wrap=True)


class Interrupted(BaseException):
    """The demo got a signal that ends it."""


def main() -> int:
    """Run the demo; returns the exit code. Unless it reaches its end, it stops everything it has started."""
    mark_children(FOLDER)
    try:
        with _alone():
            return _down() if sys.argv[1:] == ["down"] else _demo_or_nothing()
    except LocalBrokerError as error:
        console.print(f"[red]The demo failed:[/] {error}", markup=True)
        return 1


def _demo_or_nothing() -> int:
    for number in _INTERRUPTING:
        signal.signal(number, _interrupt)
    try:
        return _demo()
    except Interrupted as interrupted:
        code, text = 128 + int(interrupted.args[0]), "\nInterrupted; stopping what was started."
    except (LocalBrokerError, WchError) as error:
        code, text = (
            1,
            f"The demo failed: {error}\nStopping what was started; the logs stay in {_short(FOLDER / 'logs')}.",
        )
    except Exception:
        _stop_everything()
        raise
    for number in _INTERRUPTING:  # whoever is impatient would leave something running
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # the terminal may be closed
        console.print(text, style="red", markup=False, soft_wrap=True)
    _stop_everything()
    return code


def _interrupt(number: int, _frame: object) -> None:
    raise Interrupted(number)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print every three seconds that the demo waits for something, and for how long."""
    done, began = threading.Event(), time.monotonic()

    def report() -> None:
        while not done.wait(_REPORT_SECONDS):
            say(f"[dim]waiting for {what} ({time.monotonic() - began:.0f} s)[/]")

    reporting = threading.Thread(target=report, daemon=True)
    reporting.start()
    try:
        yield
    finally:
        done.set()
        reporting.join()


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the folder's lock, because two demos of one checkout would stop each other's broker and database."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalBrokerError(
                "another `make demo` or `make down` of this checkout is running; wait for it"
            ) from None
        yield


def _demo() -> int:
    stage = Stage.read()
    if stage.complete:
        stage.stop_programs()
    elif ended := _stop_everything():
        stage = Stage()
        say(f"stopped what an interrupted demo had left running: {', '.join(ended)}")
    stage.complete = False
    stage.write()
    (FOLDER / "logs").mkdir(parents=True, exist_ok=True)
    broker = _broker(stage)
    database_url = _database(stage)
    amqp_url = broker.fresh_vhost(VHOST)
    shop_url, graph_url = _start_simulators(stage)
    add_templates(graph_url)
    _start_services(stage, amqp_url, database_url, shop_url, graph_url)
    fill(shop_url)
    say(f"published {publish(amqp_url)}")
    # A terminal shows the progress itself.
    with nullcontext() if console.is_terminal else waiting("the scenario to end"):
        _watch(amqp_url, database_url, graph_url)
    _print_results(broker, amqp_url, database_url, graph_url)
    stage.complete = True
    stage.write()
    return 0


def _broker(stage: Stage) -> ProvidedBroker:
    broker = running_broker(stage.broker)
    if broker is None:
        with waiting("the broker"):
            broker = provide_broker(FOLDER / "broker", say, os.environ.get("WCH_DEMO_AMQP_URL"))
        stage.broker = broker.state
        stage.write()
    say(f"broker: {broker.described}")
    return broker


def _database(stage: Stage) -> str:
    """Return an empty database, on the given server or on an embedded one."""
    if given := os.environ.get("WCH_DEMO_DATABASE_URL"):
        stage.database = {"kind": "given"}
        server = given
    else:
        folder = _database_folder()
        stage.database = {"kind": "embedded", "folder": str(folder)}
        stage.write()
        with waiting("the database"):
            server = EmbeddedServer(folder, keep=True).start()
    stage.write()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS wch_demo WITH (FORCE)")
        connection.execute("CREATE DATABASE wch_demo")
    parts = conninfo_to_dict(server) | {"dbname": "wch_demo"}
    say(
        "database: an embedded PostgreSQL on a Unix socket"
        if stage.database["kind"] == "embedded"
        else "database: the given server"
    )
    return psycopg.conninfo.make_conninfo("", **parts)


def _database_folder() -> Path:
    if os.geteuid() != 0:
        return FOLDER / "postgres"
    # As root, the server runs as another user, who must be able to reach the folder; a home directory may be closed.
    return Path("/var/tmp") / f"wch-postgres-{hashlib.sha256(str(FOLDER).encode()).hexdigest()[:10]}"  # noqa: S108 - a folder of its own


def _start(stage: Stage, name: str, command: list[str], ready: str, **environment: str) -> None:
    log = FOLDER / "logs" / f"{name}.log"
    program = Program.start(name, command, log, **environment)
    stage.programs.append(program.as_dict())
    stage.write()
    with waiting(name):
        program.await_answer(ready, log)


def _start_simulators(stage: Stage) -> tuple[str, str]:
    ports = {"shop": free_port(), "graph": free_port()}
    for name, port in ports.items():
        command = ["-m", f"wch_simulators.{name}", "--port", str(port)]
        _start(stage, f"simulator-{name}", command, f"http://127.0.0.1:{port}/_simulator/journal")
    say("simulators: the shop's REST API and Meta's Graph API, on loopback")
    return f"http://127.0.0.1:{ports['shop']}", f"http://127.0.0.1:{ports['graph']}"


def _start_services(stage: Stage, amqp_url: str, database_url: str, shop_url: str, graph_url: str) -> None:
    """Start every service, and wait until each is ready.

    The scheduler is last: it publishes at once, and without a queue a request is unroutable.
    """
    common = {
        "WCH_AMQP_URL": amqp_url,
        "WCH_DATABASE_URL": database_url,
        "WCH_PERSON_HASH_KEY": HASH_KEY,
        "WCH_HEALTH_HOST": "127.0.0.1",
    }
    graph = {"WCH_GRAPH_URL": graph_url, "WCH_GRAPH_TOKEN": "simulated-token"}
    user = amqp_url.removeprefix("amqp://").partition(":")[0]
    own = {
        "sync": {
            **graph,
            "WCH_WOOCOMMERCE_URL": shop_url,
            "WCH_WOOCOMMERCE_CONSUMER_KEY": "ck_simulated",
            "WCH_WOOCOMMERCE_CONSUMER_SECRET": "cs_simulated",
            "WCH_CATALOG_ID": CATALOG,
            "WCH_CATALOG_POLL_SECONDS": "0.3",
            "WCH_SYNC_PRODUCT_RETRY_DELAYS": RETRY_DELAYS,
            "WCH_SYNC_PRODUCT_BATCH_WINDOW": "1",
        },
        "whatsapp": {
            **graph,
            "WCH_WHATSAPP_PHONE_NUMBER_IDS": NUMBER,
            "WCH_WHATSAPP_MESSAGING_LIMIT": "1000",
            "WCH_WHATSAPP_BUSINESS_ACCOUNT_ID": ACCOUNT,
        },
        "broadcast": {},
        "carts": {"WCH_CARTS_DELAY_HOURS": "0", "WCH_CARTS_QUIET_FROM": "00:00", "WCH_CARTS_QUIET_UNTIL": "00:00"},
        "scheduler": {"WCH_SCHEDULES_FILE": str(SCHEDULES), "WCH_SCHEDULER_REQUESTERS": json.dumps({user: ["*"]})},
    }
    if not SCHEDULES.exists():  # an existing file may have been edited
        SCHEDULES.write_text(schedules())
    scheduler = {"scheduler": own.pop("scheduler")}
    for together in (own, scheduler):
        _start_together(stage, {name: {**common, **settings} for name, settings in together.items()})


def _start_together(stage: Stage, environments: Mapping[str, Mapping[str, str]]) -> None:
    started = []
    for name, environment in environments.items():
        port, log = free_port(), FOLDER / "logs" / f"{name}.log"
        program = Program.start(name, ["-m", f"wch_{name}"], log, **environment, WCH_HEALTH_PORT=str(port))
        stage.programs.append(program.as_dict())
        stage.write()
        started.append((program, port, log))
    for program, port, log in started:
        with waiting(f"the {program.name} service"):
            program.await_answer(f"http://127.0.0.1:{port}/readyz", log)
        delays = ", with retry delays of 2, 4 and 8 s" if program.name == "sync" else ""
        say(f"{program.name} service: running{delays}; http://127.0.0.1:{port}/metrics")


def _watch(amqp_url: str, database_url: str, graph_url: str) -> None:
    """Show progress until everything is in the catalog, sent, dead-lettered or unroutable."""
    began, offered, cart = time.monotonic(), False, ""
    delay_queues = [f"sync.product.retry.{seconds}s" for seconds in RETRY_DELAYS.split(",")]
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        while True:
            items = demo_progress.items(graph_url)
            waiting = {delay_queue: demo_progress.depth(amqp_url, delay_queue) for delay_queue in delay_queues}
            dead, unroutable, messages = (
                demo_progress.depth(amqp_url, DLQ),
                demo_progress.depth(amqp_url, UNROUTABLE),
                demo_progress.messages(database_url),
            )
            if not offered and demo_progress.suppressed(database_url):
                with Client(amqp_url, "/demo") as client:
                    client.publish_many([to_one(OPTED_OUT, "offer/1", "marketing"), campaign()])
                offered = True
            before, cart = cart, demo_progress.cart(database_url)
            if cart != before and cart == "sent":
                with Client(amqp_url, "/demo") as client:
                    client.publish(order())
            progress = Table.grid(padding=(0, 2))
            progress.add_row("in the catalog", f"[green]{len(items)}[/] items")
            for delay_queue, count in waiting.items():
                progress.add_row(delay_queue, f"[yellow]{count}[/] waiting" if count else "–")
            for key, state in sorted(messages.items()):
                progress.add_row(f"message {key}", f"[green]{state}[/]" if state == "accepted" else state)
            state, bar = demo_progress.campaign(database_url)
            progress.add_row(f"campaign {CAMPAIGN}", bar)
            progress.add_row(f"cart {CART}", cart or "–")
            progress.add_row("schedule cart-reminder-scan", f"{demo_progress.ticks(database_url)} times")
            progress.add_row(DLQ, f"[red]{dead}[/]")
            progress.add_row(UNROUTABLE, f"[magenta]{unroutable}[/]")
            live.update(progress)
            messages_ended = messages == {"order/17": "accepted", "offer/1": "suppressed"}
            ended = state == "completed" and cart == "recovered"
            if len(items) >= len(GOOD) + 3 and messages_ended and dead >= 2 and unroutable >= 1 and ended:
                return
            if time.monotonic() - began > _STORY_SECONDS:
                raise LocalBrokerError(
                    f"the story did not end within {_STORY_SECONDS} s; see the logs in {FOLDER / 'logs'}"
                )
            time.sleep(0.2)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _results(amqp_url: str, database_url: str, graph_url: str) -> Table:
    """Return a table of what happened and how it ended."""
    dead_letters: dict[str, str] = {}
    with open_mailbox(amqp_url, DLQ) as mailbox:
        for dead_letter in mailbox.take():
            headers = dead_letter.message.headers
            fields = headers.get("wch-error-fields")
            problems = [f"{one['field']}: {one['problem']}" for one in json.loads(str(fields))] if fields else []
            dead_letters[str(headers.get("wch-error-kind"))] = "; ".join(problems) or str(
                headers.get("wch-error-message")
            )
    items = demo_progress.items(graph_url)
    table = Table("WHAT HAPPENED", "HOW IT ENDED", "WHERE", box=None, pad_edge=False, header_style="bold")
    good = sum(1 for item in items.values() if "item_group_id" not in item)
    table.add_row(f"{good} requested products", "[green]in the catalog[/], sent in one call", CATALOG)
    variants = len(items) - good
    table.add_row(
        "a product for which the shop failed twice",
        f"[green]in the catalog[/] ({variants} variants) from its delay queue",
        CATALOG,
    )
    messages = httpx.get(f"{graph_url}/_simulator/messages", timeout=10).json()
    sent = [one for one in messages if one["to"] == CUSTOMER]
    table.add_row("a message requested twice", f"[green]sent[/] {_times(len(sent))}", f"number {NUMBER}")
    table.add_row("an offer to a customer who wrote STOP", "[yellow]suppressed[/], not sent", "whatsapp")
    _, line = demo_progress.campaign(database_url)
    table.add_row("a campaign to 500 recipients, in batches of 50", line.partition("%, ")[2], "broadcast")
    reminders = sum(one["to"] == SHOPPER for one in messages)
    recovered = "; ordered after it, [green]recovered[/]" if demo_progress.cart(database_url) == "recovered" else ""
    table.add_row(
        "a scan of carts every 3 s",
        f"[green]requested[/] {_times(demo_progress.ticks(database_url))} so far",
        "scheduler",
    )
    table.add_row("an abandoned cart", f"its owner [green]reminded[/] {_times(reminders)}{recovered}", "carts")
    table.add_row("a product the catalog refused", f"[red]dead letter[/]: {dead_letters.get('rejected', '?')}", DLQ)
    table.add_row("a malformed event", f"[red]dead letter[/]: {dead_letters.get('invalid_data', '?')}", DLQ)
    table.add_row("a request that no service handles", "[magenta]kept as unroutable[/]", UNROUTABLE)
    return table


def _print_results(broker: ProvidedBroker, amqp_url: str, database_url: str, graph_url: str) -> None:
    from wch_common.broker.management import Management

    console.print()
    console.print(_results(amqp_url, database_url, graph_url))
    user, _, password = amqp_url.removeprefix("amqp://").rpartition("@")[0].partition(":")
    environment = FOLDER / "env"
    environment.touch(mode=0o600)
    environment.write_text(
        f'export WCH_AMQP_URL="{amqp_url}"\nexport WCH_DATABASE_URL="{database_url}"\n'
        f'export WCH_SYNC_PRODUCT_RETRY_DELAYS="{RETRY_DELAYS}"\nexport WCH_PERSON_HASH_KEY="{HASH_KEY}"\n'
        f'export PATH="{Path(sys.executable).parent}:$PATH"\n'
    )
    with Management(amqp_url) as management:
        address = management.address
    console.print(
        f"\nManagement UI: {address}  login {user} / {password}  ({broker.described}, virtual host {VHOST})",
        soft_wrap=True,
    )
    console.print(f"Messages that Meta's simulator received: {graph_url}/_simulator/messages", soft_wrap=True)
    console.print("\nTry next (first `. .wch/env`):")
    console.print(f"  wch dlq list {DLQ}")
    console.print(f"  wch dlq show {DLQ}")
    console.print("  wch whatsapp list")
    console.print(f"  wch campaigns status {CAMPAIGN}")
    console.print(rf"  printf 'to,body1\n{CUSTOMER},Ada\n' | wch campaigns import guests -")
    console.print("  wch campaigns start welcome --list guests --template hello --dry-run")
    console.print(f"  wch carts show {CART}")
    console.print("  wch schedules list")
    console.print(
        f"\nLogs: {_short(FOLDER / 'logs')}  Schedules (edit the file to change them): {_short(SCHEDULES)}",
        soft_wrap=True,
    )
    console.print("\nEverything keeps running; `make down` stops it.", soft_wrap=True)


def _short(path: Path) -> str:
    return os.path.relpath(path)


def _down() -> int:
    if Stage.read().broker.get("kind") == "given":
        say(f"the given broker keeps running, with its virtual host {VHOST}")
    ended = _stop_everything()
    say(f"stopped: {', '.join(ended)}" if ended else "the demo was not running")
    return 0


def _stop_everything() -> list[str]:
    """Stop what the demo has started, in an orderly way where it is recorded; returns the names."""
    stage = Stage.read()
    ended = stage.stop_programs()
    if broker := end_broker(stage.broker):
        ended.append(broker)
    folder = _database_folder()
    server = EmbeddedServer(folder, keep=True)
    if folder.exists() and server.stop():
        ended.append("the embedded database")
    # A process that was killed may have started more than it recorded.
    ended += [*end_leftovers(FOLDER), *end_containers(FOLDER)]
    server.remove()
    shutil.rmtree(FOLDER / "broker", ignore_errors=True)
    STATE.unlink(missing_ok=True)
    (FOLDER / "env").unlink(missing_ok=True)
    return ended


if __name__ == "__main__":
    sys.exit(main())
