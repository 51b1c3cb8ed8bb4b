"""The vendor's listing in its stage, beside the tables: real Postgres, no vendor."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import audit, audit_staging
from db.audit import AuditFinding, AuditScope
from db.database import Connection, Database
from leadloop.core.audit_differences import (
    DIFFERENCES,
    PERSON_DIFFERENCES,
    REMARKS,
    parse_listing_page,
)
from tests import factories, sql

BEGAN = datetime(9000, 1, 1, tzinfo=UTC)
EARLIER = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def stage(database: Database) -> Iterator[Connection]:
    """A connection with an open stage, and a campaign."""
    factories.add_campaign(database)
    with database.autocommit() as connection:
        audit_staging.create_listing_table(connection)
        yield connection


def shown(lead_id: str, **more: Any) -> dict[str, Any]:
    """A lead as the vendor shows it."""
    return {**factories.build_lead(lead_id), "created_at": 1, **more}


def put(stage: Connection, *results: Any, reading: int = 1, page: int = 1) -> None:
    """Stage a page."""
    audit_staging.stage_page(
        stage,
        [
            audit_staging.format_listed_row(listed, reading=reading, page=page, with_result=True)
            for listed in parse_listing_page(results, "C1")
        ],
    )


def assumed(**changes: Any) -> AuditScope:
    """A listing that was read whole, of a vendor that shows everything."""
    usual = {
        "campaign_id": factories.CAMPAIGN,
        "started_at": BEGAN,
        "settled_by": BEGAN,
        "is_complete": True,
        "shows_unprocessed": True,
        "clock_skew": timedelta(0),
    }
    return AuditScope(**{**usual, **changes})


def found(stage: Connection, **changes: Any) -> dict[str, list[str]]:
    """The samples of what a comparison finds."""
    findings = audit.compare_listing(stage, assumed(**changes))
    return {name: list(finding.samples) for name, finding in findings.items() if finding.leads}


def test_every_difference_is_looked_for(stage: Connection) -> None:
    """What the documents list is what is compared, and nothing more."""
    audit_staging.create_lead_table(stage)
    repaired = {name for name in REMARKS if name.startswith("repaired")}
    expected = {*DIFFERENCES, *REMARKS} - {*PERSON_DIFFERENCES, "counts_differ"} - repaired
    assert set(audit.compare_listing(stage, assumed())) == expected


def test_the_latest_state_counts(database: Database, stage: Connection) -> None:
    """A lead that was processed while it was read is processed, in whichever order it came."""
    put(stage, shown("a", processed_at=1767225600000, outcome_name="Yes"))
    put(stage, shown("a"), reading=2)
    audit_staging.create_lead_table(stage)
    assert found(stage) == {"missing_here": ["a"], "outcome_missing_here": ["a"]}


def test_a_finding_tells_three_ids_and_counts_all(database: Database, stage: Connection) -> None:
    """The first ones, so that two audits tell the same."""
    put(stage, *[shown(f"L{number}") for number in range(9)])
    audit_staging.create_lead_table(stage)
    finding = audit.compare_listing(stage, assumed())["missing_here"]
    assert finding == AuditFinding(leads=9, samples=["L0", "L1", "L2"])


def test_other_campaigns_are_not_looked_at(database: Database, stage: Connection) -> None:
    """Leads, outcomes and opt-outs of the same ids elsewhere."""
    factories.add_campaign(database, "C2")
    factories.add_leads(database, "a", "z", campaign="C2")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    factories.add_opt_outs(database, "a", campaign="C2", status="cancelled", confirmed_at=EARLIER)
    put(stage, shown("a"))
    audit_staging.create_lead_table(stage)
    assert found(stage) == {"missing_here": ["a"]}
    assert audit.repair_leads(stage, factories.CAMPAIGN) == 0
    assert audit.repair_opt_outs(stage, factories.CAMPAIGN) == (0, 0)
    assert sql.fetch_statuses(database, "C2") == {"a": "in_doubt", "z": "in_doubt"}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, "missing_there"),
        ({"settled_by": EARLIER}, "absence_unproven"),
        ({"is_complete": False}, "absence_unproven"),
        ({"shows_unprocessed": False}, "absence_unproven"),
    ],
)
def test_absence_counts_only_where_it_proves_something(
    database: Database, stage: Connection, changes: dict[str, Any], finding: str
) -> None:
    """Settled, the listing whole, and a vendor that would show the lead."""
    factories.add_leads(database, "a")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created', confirmed_at = now()")
    audit_staging.create_lead_table(stage)
    assert found(stage, **changes) == {finding: ["a"]}


@pytest.mark.parametrize("status", ["new", "sending", "rejected", "cancelled"])
def test_leads_that_we_do_not_claim_are_not_missed(
    database: Database, stage: Connection, status: str
) -> None:
    """Neither side has them."""
    factories.add_leads(database, "a")
    sql.execute(database, "UPDATE leadloop.leads SET status = :status", status=status)
    audit_staging.create_lead_table(stage)
    assert found(stage) == {}


def test_what_a_poll_stores_meanwhile_is_no_difference(
    database: Database, stage: Connection
) -> None:
    """Outcomes that were stored or changed since the listing was begun."""
    factories.add_leads(database, "a", "b")
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           SELECT campaign_id, lead_id, now(), '{}' FROM leadloop.leads""",
    )
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created'")
    put(stage, shown("a", processed_at=5), shown("b"))
    audit_staging.create_lead_table(stage)
    assert found(stage, started_at=EARLIER) == {}
    both = {"outcome_differs": ["a"], "outcome_missing_there": ["b"]}
    assert found(stage) == both


def test_only_what_may_differ_is_looked_at_closely(database: Database, stage: Connection) -> None:
    """Numbers that SQL can see to be the same are passed over; the rest comes in batches."""
    many = [f"L{number:04d}" for number in range(2500)]
    factories.add_leads(database, "a", "b", "c", "d", *many)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created'")
    number = "UPDATE leadloop.leads SET phone_number = :number WHERE lead_id = :lead"
    sql.execute(database, number, number="(415) 555-0123", lead="a")
    sql.execute(database, number, number="1 415 555 0123", lead="b")
    sql.execute(database, number, number="+1 415-555-0123", lead="c")
    same = {"phone_number": "+14155550123"}
    rows = [shown(lead_id, **same) for lead_id in "abc"] + [shown("d", state_code=None)]
    put(stage, *rows, *[shown(lead_id, contact_name="Other") for lead_id in many])
    audit_staging.create_lead_table(stage)
    pairs = list(audit.iter_field_mismatches(stage, factories.CAMPAIGN, "1"))
    assert [pair.lead_id for pair in pairs] == [*many, "b"]
    assert "Other" not in repr(pairs[0])


def test_better_outcomes_come_in_batches(database: Database, stage: Connection) -> None:
    """Those that are missing or older here, each once; not one that is older there."""
    many = [f"L{number:04d}" for number in range(2500)]
    put(stage, *[shown(lead_id, processed_at=1767225600000) for lead_id in many])
    put(stage, *[shown(lead_id, processed_at=1767225600000) for lead_id in many], reading=2)
    audit_staging.create_lead_table(stage)
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           VALUES ('C1', 'L0000', '2026-02-01Z', '{}'), ('C1', 'L0001', '2025-12-01Z', '{}')""",
    )
    batches = [len(batch) for batch in audit.iter_newer_outcomes(stage, factories.CAMPAIGN)]
    assert sum(batches) == 2499
    assert max(batches) <= 1000
