"""What a batch sends to the catalog, and what the catalog's answers mean for its products. No I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wch_common.outcome import Reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wch_sync.catalog import CatalogBatchResult


@dataclass
class BatchPlan:
    """The requests of a batch to the catalog, and the product that each item belongs to."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    product_of: dict[str, int] = field(default_factory=dict)
    sends: dict[int, list[str]] = field(default_factory=dict)
    deletes: dict[int, list[str]] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)

    def add(self, product_id: int, new: Sequence[dict[str, Any]], surplus: Iterable[str]) -> None:
        """Send a product's items, and delete those of `surplus` that it no longer has."""
        # Rows can move between the pages of a shop, so that one appears twice.
        new = list({item["id"]: item for item in new}.values())
        self.sends[product_id] = [item["id"] for item in new]
        self.deletes[product_id] = sorted(set(surplus) - set(self.sends[product_id]))
        self.requests += [{"method": "UPDATE", "data": item} for item in new]
        self.requests += [{"method": "DELETE", "data": {"id": id_}} for id_ in self.deletes[product_id]]
        self.product_of |= dict.fromkeys((*self.sends[product_id], *self.deletes[product_id]), product_id)

    def keep_moved_items(self) -> None:
        """Delete no item that another product sends, because a variation can move between parents."""
        sent = {item: product for product, ids in self.sends.items() for item in ids}
        self.requests = [one for one in self.requests if one["method"] != "DELETE" or one["data"]["id"] not in sent]
        self.deletes = {product: [item for item in ids if item not in sent] for product, ids in self.deletes.items()}
        self.product_of |= sent


@dataclass
class CatalogChanges:
    """What a batch changed in the catalog: for each product, the items that were sent and those that were deleted."""

    sent: dict[int, list[str]] = field(default_factory=dict)
    deleted: dict[int, list[str]] = field(default_factory=dict)
    product_of: dict[int, int] = field(default_factory=dict)
    """The product of each requested id: itself, or the parent of a variation."""


def changes_and_failures(plan: BatchPlan, result: CatalogBatchResult) -> tuple[CatalogChanges, dict[int, Exception]]:
    """Return the changes, and the failed products with their outcomes; one refused item fails its product."""
    failed: dict[int, Exception] = dict(plan.failed)
    reasons: dict[int, list[str]] = defaultdict(list)
    for item, reason in result.refused.items():
        if item in plan.product_of:
            reasons[plan.product_of[item]].append(f"{item}: {reason}")
    for id_, texts in reasons.items():
        failed[id_] = Reject("the catalog refused " + "; ".join(sorted(texts)))
    for item, error in result.failed.items():
        failed.setdefault(plan.product_of[item], error)
    changes = CatalogChanges()
    unchanged = set(result.failed) | set(result.refused)
    for id_, sent in plan.sends.items():
        changes.sent[id_] = [item for item in sent if item not in unchanged]
        changes.deleted[id_] = [item for item in plan.deletes[id_] if item not in unchanged]
    return changes, failed
