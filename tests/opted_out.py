"""People who opted out, and the ways in which the vendor may fail on them."""

from typing import Any

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories
from tests.jobs import push_leads

# Kinds of failure that may depend on a lead: statuses in the vendor's JSON, pages with any status,
# and responses that do not arrive, or not whole.
FAILURES: list[dict[str, Any]] = [
    *({"status": status} for status in (402, 403, 405, 406, 408, 410, 413, 418, 423, 451)),
    *({"status": status} for status in (500, 501, 503)),
    {"status": 503, "headers": {"Retry-After": "0"}},
    {"status": 403, "body": "empty"},
    *({"status": status, "body": "html"} for status in (202, 400, 401, 403, 404, 405, 407, 413)),
    *({"status": status, "body": "html"} for status in (422, 500, 502, 503)),
    {"kind": "foreign"},
    {"kind": "redirect", "url": "http://127.0.0.1/blocked"},
    {"kind": "reset"},
    {"kind": "hang", "seconds": 1},
    {"kind": "cut"},
]


def push_campaign(database: Database, *ids: str) -> None:
    """Add a campaign whose leads the vendor has."""
    factories.add_campaign(database)
    factories.add_leads(database, *ids)
    push_leads()


def opted_out_people(database: Database, amount: int) -> list[str]:
    """Add as many leads that the vendor has, all of whom have opted out; return their ids."""
    ids = [f"P{number:03d}" for number in range(amount)]
    push_campaign(database, *ids)
    factories.add_opt_outs(database, *ids)
    return ids


def name_failure(failure: dict[str, Any]) -> str:
    """Return a test's name for a failure."""
    words = ("kind", "status", "body", "headers")
    return " ".join(str(failure[word]) for word in words if word in failure)


def poison(vendor: SandboxHandle, lead_id: str, failure: dict[str, Any]) -> None:
    """Let each disable fail that holds the lead."""
    vendor.add_fault(**{"kind": "status", "route": "disable", "lead_id": lead_id} | failure)


def count_requests(vendor: SandboxHandle, kind: str) -> int:
    """Count the requests of a kind that the vendor got."""
    return sum(entry.kind == kind for entry in vendor.requests)
