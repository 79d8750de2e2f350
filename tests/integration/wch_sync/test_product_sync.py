"""Product sync from the request to the catalog, with the real service, broker and database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.command import wch
from support.stage import Stage
from support.sync_stage import CATALOG, SyncStage
from support.waiting import eventually
from wch_common.contract.event import new_event
from wch_common.events.sync import ProductRequested
from wch_simulators.shop import product, variation


@pytest.fixture
def sync(stage: Stage, database_url: str) -> Iterator[SyncStage]:
    made = SyncStage(stage, database_url)
    yield made
    made.close()


def test_a_product_reaches_the_catalog_and_the_fact_is_published(sync: SyncStage) -> None:
    sync.add([product(7, price="19.5", description="<p>Soft <b>tee</b></p>", manage_stock=True, stock_quantity=-3)])
    sync.start()
    (id_,) = sync.request(7, requester="admin")
    eventually(lambda: sync.catalog)
    item = sync.catalog["wc_7"]
    assert item["price"] == "19.50 EUR"
    assert item["description"] == "Soft tee"
    assert item["quantity_to_sell_on_facebook"] == 0
    sync.stage.await_depth("facts", 1)
    (fact,) = sync.facts()
    assert fact["type"] == "sync.product.synced.v1"
    assert fact["data"] == {"product_id": 7, "action": "updated", "items_sent": 1, "items_deleted": 0}
    assert (fact["causationid"], fact["requester"]) == (id_, "admin")


@pytest.mark.parametrize(
    ("only", "effect"), [((), "writes to no catalog"), (("9", "8"), "writes to no catalog but 9, 8")]
)
def test_a_deployment_with_a_list_writes_to_no_other_catalog(
    sync: SyncStage, only: tuple[str, ...], effect: str
) -> None:
    sync.add([product(7)])
    running = sync.start(sync_only_catalogs=only)
    sync.request(7)
    metric = running.service._metrics.registry.get_sample_value
    eventually(lambda: metric("wch_sync_products_left_out_total") == 1)
    assert (sync.catalog, sync.batches) == ({}, [])
    said = wch(sync.stage, "doctor", code=1, WCH_DATABASE_URL=sync.database_url)
    assert f"sync: WCH_SYNC_ONLY_CATALOGS is set since {datetime.now(UTC):%Y-}" in said
    assert effect in said
    running.stop()
    sync.start(sync_only_catalogs=(CATALOG,))
    sync.request(7)
    eventually(lambda: sync.catalog)
    running = sync.start()
    assert "ONLY_CATALOGS" not in wch(sync.stage, "doctor", code=1, WCH_DATABASE_URL=sync.database_url)


def test_ten_requests_for_one_product_in_a_window_send_one_item(sync: SyncStage) -> None:
    sync.add([product(7)])
    sync.start()
    sync.request(*[7] * 10)
    eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(10,)])
    assert len(sync.batches) == 1
    eventually(lambda: sync.query("SELECT count(*) FROM outbox") == [(0,)])
    assert len(sync.facts()) == 1


def test_variations_are_items_of_a_group_and_a_removed_one_is_deleted(sync: SyncStage) -> None:
    sync.add([product(7, name="Tee")])
    parent = sync.shop.products[7]
    sync.shop.add_variations(7, *(variation(700 + n, parent, option=f"Tone {n}") for n in range(120)))
    sync.start()
    sync.request(7)
    eventually(lambda: len(sync.catalog) == 120)
    assert sync.catalog["wc_701"]["item_group_id"] == "wc_7"
    assert sync.catalog["wc_701"]["color"] == "Tone 1"
    assert sync.catalog["wc_701"]["title"] == "Tee Tone 1"
    sync.shop.remove_variation(701)
    sync.request(702)  # requested by the id of another variation
    eventually(lambda: "wc_701" not in sync.catalog)
    assert len(sync.catalog) == 119
    stored = "SELECT count(*), bool_or(item_id = 'wc_701') FROM sent_items"
    eventually(lambda: sync.query(stored) == [(119, False)], "the table equals the catalog")


@pytest.mark.parametrize("how", ["trash", "draft", "force"])
def test_a_product_that_is_no_longer_sold_is_deleted(sync: SyncStage, how: str) -> None:
    sync.add([product(7), product(8)])
    sync.start()
    sync.request(7, 8)
    eventually(lambda: len(sync.catalog) == 2)
    if how == "force":
        del sync.shop.products[7]
    else:
        sync.shop.products[7]["status"] = how
    sync.request(7)
    eventually(lambda: list(sync.catalog) == ["wc_8"])
    eventually(lambda: [fact["data"]["action"] for fact in sync.facts()].count("deleted") == 1)
    assert sync.query("SELECT item_id FROM sent_items") == [("wc_8",)]


@pytest.mark.parametrize("how", ["draft", "gone"])
def test_an_item_that_another_program_added_to_the_catalog_is_deleted_too(sync: SyncStage, how: str) -> None:
    """The program that this service replaces has sent items of which this service has no record."""
    if how == "draft":
        sync.add([product(7, status="draft")])
    sync.graph.catalogs[CATALOG] = {"wc_7": {"id": "wc_7"}}
    sync.start()
    sync.request(7)
    eventually(lambda: not sync.catalog)


def test_a_product_missing_from_a_page_is_deleted_only_if_reading_it_alone_finds_nothing(sync: SyncStage) -> None:
    sync.add([product(7)])
    sync.start()
    sync.request(7)
    eventually(lambda: sync.catalog)
    sync.fail_shop(r"/products\?", status=200, body=[], times=1)
    sync.fail_shop(r"/products/7", status=500, body="<html>busy</html>", times=1)
    sync.shop.products[7]["name"] = "Renamed"
    sync.request(7)
    eventually(
        lambda: sync.catalog["wc_7"]["title"] == "Renamed",
        "the single read failed, so the request was retried and nothing deleted",
    )


def test_refused_products_are_dead_lettered_with_the_reason_and_the_others_are_sent(sync: SyncStage) -> None:
    sync.add([product(1), product(2, images=[]), product(3), product(4, price="", regular_price="")])
    sync.graph.refused["wc_3"] = "Policy: not allowed here"
    sync.start()
    sync.request(1, 2, 3, 4)
    dead_letters = sync.stage.await_dead_letters("sync.product.dlq", 3)
    reasons = sorted(str(dead_letter.message.headers["wch-error-message"]) for dead_letter in dead_letters)
    assert "image_link" in reasons[1]
    assert "Policy: not allowed here" in reasons[2]
    assert "has no price" in reasons[0]
    assert {dead_letter.message.headers["wch-error-kind"] for dead_letter in dead_letters} == {"rejected"}
    assert list(sync.catalog) == ["wc_1"]
    sync.stage.await_depth("facts", 4)
    assert sorted(fact["type"].split(".")[2] for fact in sync.facts()) == ["failed", "failed", "failed", "synced"]


def test_a_product_that_fails_twice_succeeds_from_its_delay_queue(sync: SyncStage) -> None:
    sync.add([product(7)])
    sync.fail_shop("/products", status=503, body="<html>maintenance</html>", times=2)
    sync.start()
    sync.request(7)
    eventually(lambda: sync.catalog)
    assert sync.stage.depth("sync.product.dlq") == 0


@pytest.mark.parametrize(
    ("error", "parked"),
    [
        ({"code": 190, "message": "token expired"}, True),
        ({"code": 80014, "message": "too many calls"}, True),
        ({"code": 2, "message": "temporarily down"}, False),
    ],
    ids=["auth", "throttle", "backoff"],
)
def test_catalog_errors_are_classified_by_their_code(sync: SyncStage, error: dict[str, Any], *, parked: bool) -> None:
    sync.add([product(7)])
    sync.fail_graph("items_batch", status=400, body={"error": error}, times=1)
    sync.start()
    sync.request(7)
    if parked:
        eventually(lambda: sync.query("SELECT scope FROM parked") == [(f"catalog/{CATALOG}",)])
        sync.query("UPDATE parked SET due_at = now(); UPDATE scopes SET paused_until = now()")
    eventually(lambda: sync.catalog)
    assert sync.stage.depth("sync.product.dlq") == 0


def test_an_item_that_makes_meta_refuse_the_whole_call_does_not_block_the_others(sync: SyncStage) -> None:
    sync.add(product(id_) for id_ in range(1, 9))
    sync.fail_graph(
        "items_batch", status=400, body={"error": {"code": 1, "message": "Please reduce the amount of data"}}
    )
    sync.start()
    sync.request(*range(1, 9))
    eventually(lambda: len(sync.catalog) == 8)
    assert len(sync.batches) == 3


def test_a_shop_that_refuses_our_keys_parks_its_events(sync: SyncStage) -> None:
    sync.add([product(7)])
    running_secret = sync.shop.secret
    sync.start()
    sync.shop.secret = "cs_changed"
    sync.request(7)
    eventually(lambda: sync.query("SELECT count(*) FROM parked") == [(1,)])
    sync.shop.secret = running_secret
    sync.query("UPDATE parked SET due_at = now(); UPDATE scopes SET paused_until = now()")
    eventually(lambda: sync.catalog)


def test_an_interrupted_call_is_repeated_and_the_catalog_ends_with_the_newest_state(sync: SyncStage) -> None:
    sync.add([product(7)])
    sync.fail_graph("items_batch", reset="after")
    sync.start()
    sync.request(7)
    eventually(lambda: sync.stage.depth("sync.product.retry.200ms"), "the result of its call is unknown, and it waits")
    assert sync.query("SELECT count(*) FROM in_flight") == [(1,)]
    sync.shop.products[7]["name"] = "Renamed"
    eventually(lambda: sync.catalog.get("wc_7", {}).get("title") == "Renamed")
    eventually(lambda: sync.query("SELECT count(*) FROM in_flight") == [(0,)])


def test_the_next_holder_of_an_expired_lease_sends_products_in_flight_again(sync: SyncStage) -> None:
    sync.add([product(7), product(8)])
    sync.start()
    sync.query(f"INSERT INTO in_flight VALUES ('{CATALOG}', 8, 0)")
    sync.query(f"INSERT INTO leases VALUES ('catalog/{CATALOG}', 'dead', 1, now() + interval '1 second')")
    ((ends,),) = sync.query("SELECT extract(epoch FROM until)::float FROM leases")
    sync.request(7)
    eventually(lambda: len(sync.catalog) == 2)
    eventually(lambda: sync.query("SELECT count(*) FROM in_flight") == [(0,)])
    assert sync.batches[0]["time"] >= ends, "nothing is sent before the lease of the dead holder expires"


def test_each_event_reaches_its_own_shop_and_an_unknown_shop_is_refused(sync: SyncStage, tmp_path: Path) -> None:
    sync.add([product(7)])
    shop = {
        "woocommerce": {"url": sync.shop_url, "consumer_key": sync.shop.key, "consumer_secret": sync.shop.secret},
        "graph": {"url": sync.graph_url, "token": sync.graph.token},
        "another_service": {"its": "own"},
    }
    file = tmp_path / "shops.json"
    file.write_bytes(orjson.dumps({"north": shop | {"catalog": {"id": "1"}}, "south": shop | {"catalog": {"id": "2"}}}))
    sync.start(shops_file=file)
    sync.request(7, shop="south")
    sync.request(7, shop="east")
    (dead_letter,) = sync.stage.await_dead_letters("sync.product.dlq")
    assert dead_letter.message.headers["wch-error-message"] == "the shop 'east' is not configured here: north, south"
    eventually(lambda: "2" in sync.graph.catalogs)
    assert "1" not in sync.graph.catalogs


def test_a_product_that_a_plugin_has_made_unreadable_fails_alone(sync: SyncStage) -> None:
    sync.add([product(1), product(2, images=False), product(3)])
    sync.start()
    sync.request(1, 2, 3)
    (dead_letter,) = sync.stage.await_dead_letters("sync.product.dlq")
    assert "invalid fields: images" in str(dead_letter.message.headers["wch-error-message"])
    eventually(lambda: sorted(sync.catalog) == ["wc_1", "wc_3"])


def test_a_batch_of_which_the_catalog_accepted_nothing_is_retried(sync: SyncStage) -> None:
    sync.add([product(1), product(2)])
    sync.fail_graph("items_batch", status=200, body={"handles": [], "validation_status": []})
    sync.start()
    sync.request(1, 2)
    eventually(lambda: len(sync.catalog) == 2)
    assert len(sync.batches) == 2


def test_products_for_which_a_slow_catalog_leaves_no_time_wait_and_spend_no_try(
    sync: SyncStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wch_sync.catalog.MOST_REQUESTS", 2)
    monkeypatch.setattr("wch_sync.catalog.CatalogWriter.CALL_SECONDS", 1.0)
    monkeypatch.setattr("wch_sync.catalog._SLOW_SECONDS", 0.1)
    monkeypatch.setattr("wch_sync.handlers._SENDING_SECONDS", 1.5)
    sync.add(product(id_) for id_ in range(1, 9))
    sync.fail_graph("items_batch", times=100, delay_seconds=0.6)
    sync.start()
    sync.request(*range(1, 9))
    eventually(lambda: len(sync.catalog) == 8)
    eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(8,)])
    assert sync.stage.depth("sync.product.dlq") == 0
    assert len(sync.batches) >= 4


def test_a_batch_that_the_catalog_does_not_process_in_time_stays_in_flight(sync: SyncStage) -> None:
    sync.add([product(7)])
    sync.fail_graph("check_batch_request_status", times=1, delay_seconds=30)
    sync.start(catalog_wait_seconds=0.5)
    sync.request(7)
    eventually(lambda: sync.stage.depth("sync.product.retry.200ms"))
    assert sync.query("SELECT count(*) FROM in_flight") == [(1,)]
    eventually(lambda: sync.query("SELECT count(*) FROM in_flight") == [(0,)])
    eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(1,)])


def test_an_error_while_a_batch_is_polled_does_not_send_it_again_at_once(sync: SyncStage) -> None:
    sync.add(product(id_) for id_ in range(1, 9))
    error = {"error": {"code": 100, "message": "Invalid parameter"}}
    sync.fail_graph("check_batch_request_status", status=400, body=error)
    sync.start()
    sync.request(*range(1, 9))
    eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(8,)])
    assert len(sync.batches) == 2
    assert sync.stage.depth("sync.product.dlq") == 0


def test_an_id_reused_for_other_data_in_one_batch_is_refused_alone(sync: SyncStage) -> None:
    sync.add([product(1), product(2), product(3)])
    sync.add([product(9)])
    sync.start()
    sync.request(9)
    eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(1,)], "the careful start has ended")
    pairs = ((1, "same"), (2, "same"), (3, "other"))
    with sync.stage.client() as client:
        client.publish_many(new_event(ProductRequested(product_id=number), "/test", id=id_) for number, id_ in pairs)
    (dead_letter,) = sync.stage.await_dead_letters("sync.product.dlq")
    assert dead_letter.message.headers["wch-error-kind"] == "id_reused"
    eventually(lambda: sorted(sync.catalog) == ["wc_1", "wc_3", "wc_9"])
    assert len(sync.batches) == 2, "the three events are one batch"


def test_two_replicas_end_with_the_newest_state(sync: SyncStage) -> None:
    sync.add(product(id_) for id_ in range(1, 41))
    slow = 0.3
    sync.fail_graph("items_batch", times=1000, delay_seconds=slow)
    sync.start()
    sync.start()

    def change() -> None:
        for turn in range(5):
            for id_ in range(1, 41):
                sync.shop.products[id_]["name"] = f"Turn {turn} of {id_}"
            sync.request(*range(1, 41))

    changing = threading.Thread(target=change)
    changing.start()
    changing.join()
    eventually(lambda: sync.query("SELECT count(*) FROM inbox") == [(200,)])
    assert {id_: item["title"] for id_, item in sync.catalog.items()} == {
        f"wc_{id_}": f"Turn 4 of {id_}" for id_ in range(1, 41)
    }
    started = [call["time"] for call in sync.batches]
    assert len(started) > 1
    assert min(later - earlier for earlier, later in pairwise(started)) >= slow, "no two calls are in flight at once"
