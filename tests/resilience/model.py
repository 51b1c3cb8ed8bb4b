"""The model of one campaign on both sides, Postgres and the vendor."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from db.database import Database, DatabaseError
from leadloop.core.errors import RunError
from leadloop.sandbox import Rules, SandboxHandle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.resilience.counters import COUNTERS

#: Seconds that a poll re-reads behind the watermark: the setting's default.
LOOKBACK_S = 900

Flow = Callable[..., dict[str, Any]]
ShownOutcome = tuple[str, int]
"""A lead id and its processing time (epoch ms), as the vendor shows it now."""


@dataclass(frozen=True, kw_only=True)
class InsertedLead:
    """A lead as upstream inserted it; valid if neither side has a reason to reject it."""

    row: dict[str, Any]
    is_valid: bool

    @property
    def phone(self) -> Any:
        """The phone number as it was inserted."""
        return self.row["phone_number"]


@dataclass(kw_only=True)
class LoopModel:
    """Both sides, and the expected state of both.

    Attributes:
        never_send: leads that opted out before the vendor had them.
        never_send_by_phone: leads whose number had opted out under another id.
        late_outcomes: outcomes that the vendor showed after their time had been read.
        shown_outcomes: every outcome that the vendor has shown of a lead, by its time.
        may_reject_valid: whether a fault may have rejected valid leads.
        highest_watermark: the watermark at the latest check.
    """

    database: Database
    vendor: SandboxHandle
    settle_s: int = 0
    leads: dict[str, InsertedLead] = field(default_factory=dict)
    opted_out: set[str] = field(default_factory=set)
    opted_out_phones: set[Any] = field(default_factory=set)
    never_send: set[str] = field(default_factory=set)
    never_send_by_phone: set[str] = field(default_factory=set)
    late_outcomes: set[ShownOutcome] = field(default_factory=set)
    shown_outcomes: dict[str, dict[int, tuple[Any, ...]]] = field(default_factory=dict)
    may_reject_valid: bool = False
    highest_watermark: datetime | None = None

    def reset(self) -> None:
        """Empty both sides and restore the default rules."""
        tables = sql.fetch_rows(
            self.database,
            "SELECT format('leadloop.%I', tablename) AS name FROM pg_tables"
            # Keep the rows that migrations insert.
            " WHERE schemaname = 'leadloop'"
            " AND tablename NOT IN ('alembic_version', 'number_key', 'counts_filled')",
        )
        names = ", ".join(row["name"] for row in tables)
        sql.execute(self.database, f"TRUNCATE {names}")
        self.vendor.reset()
        secrets = {"tokens", "client_id", "client_secret", "username", "password"}
        fresh = Rules(rate_limit=None, pace=None)
        self.vendor.change_rules(**{k: v for k, v in vars(fresh).items() if k not in secrets})

    # Upstream.

    def insert_lead(self, lead: InsertedLead) -> None:
        """Insert a lead; it must never be sent if its opt-out came first."""
        lead_id = lead.row["lead_id"]
        factories.add_leads(self.database, lead.row)
        self.leads[lead_id] = lead
        COUNTERS["leads"] += 1
        if lead_id in self.opted_out:
            self._opt_out_phone(lead.phone)
        elif lead.phone in self.opted_out_phones:
            self.never_send_by_phone.add(lead_id)

    def opt_out(self, lead_id: str) -> None:
        """Opt a lead out; it must never be sent if the vendor lacks it now."""
        factories.add_opt_outs(self.database, lead_id)
        self.opted_out.add(lead_id)
        COUNTERS["opt-outs"] += 1
        if self.vendor.store.lead(CAMPAIGN, lead_id) is None:
            self.never_send.add(lead_id)
        if lead_id in self.leads:
            self._opt_out_phone(self.leads[lead_id].phone)

    def _opt_out_phone(self, phone: Any) -> None:
        self.opted_out_phones.add(phone)
        has = self.vendor.store.creations(CAMPAIGN)
        self.never_send_by_phone |= {
            lead_id
            for lead_id, lead in self.leads.items()
            if lead.phone == phone and lead_id not in has
        }

    # The vendor.

    def process_lead(self, lead_id: str, *, back_s: float, hidden_s: float = 0.0) -> None:
        """Process a lead `back_s` seconds ago; the vendor shows it after `hidden_s` seconds."""
        now = self.vendor.now()
        item: dict[str, Any] = {
            "campaign_id": CAMPAIGN,
            "lead_id": lead_id,
            "processed_at": now - int(back_s * 1000),
            "visible_at": now + int(hidden_s * 1000),
        }
        self.vendor.put_outcomes([item])
        COUNTERS["outcomes"] += 1
        mark = self.fetch_watermark()
        if mark is not None and item["processed_at"] <= _to_epoch_ms(mark):
            self.late_outcomes.add((lead_id, now - int(back_s * 1000)))
        self.record_outcomes()

    def record_outcomes(self) -> set[ShownOutcome]:
        """Record every outcome of the vendor; return those that the vendor shows by now."""
        campaign = self.vendor.store.find_campaign(CAMPAIGN)
        shown_from = self.vendor.now() - self.vendor.rules.lead_visible_after * 1000
        seen = set()
        for lead in campaign.processed if campaign else ():
            shown = self.vendor.store.get_outcome(campaign, lead) if campaign else None
            assert shown is not None
            facts = (str(shown.outcome_id), shown.outcome_name, float(shown.total_cost))
            self.shown_outcomes.setdefault(lead.lead_id, {})[
                self.round_to_api(lead.processed_ms())
            ] = facts
            if lead.created_at <= shown_from:
                seen.add((lead.lead_id, lead.processed_ms()))
        return seen

    def _fetch_outcomes(self) -> set[ShownOutcome]:
        """Return every outcome of the vendor, also of leads that it does not show yet."""
        campaign = self.vendor.store.find_campaign(CAMPAIGN)
        processed = campaign.processed if campaign else ()
        return {(lead.lead_id, lead.processed_ms()) for lead in processed}

    def round_to_api(self, at: int) -> int:
        """Round an epoch-ms time to the precision of the vendor's responses."""
        return at // 1000 * 1000 if self.vendor.rules.time_format == "s" else at

    # leadloop.

    def run_flow(self, flow: Flow, **more: Any) -> dict[str, Any] | None:
        """Run a flow; return None if it failed, as it may while the vendor does."""
        COUNTERS["flow runs"] += 1
        before, began = self._fetch_outcomes(), self.vendor.now()
        try:
            return flow(campaigns=[CAMPAIGN], **more)
        except DatabaseError:
            raise
        except RunError:
            return None
        finally:
            # A lookup of a push may be the request at which an outcome comes late, too, and of a
            # lead that the vendor does not show yet.
            self.late_outcomes |= {new for new in self._fetch_outcomes() - before if new[1] < began}

    def run_poll(self, flow: Flow, *, start: datetime | None = None, **more: Any) -> bool:
        """Run a flow that polls; if it succeeds, the outcomes that it re-read are no longer late.

        Args:
            flow: the flow.
            start: the start of the range; None: the watermark less the lookback.
            more: the flow's parameters.
        """
        before = self.record_outcomes()
        start = start or self._lookback_start()
        done = self.run_flow(flow, **more) is not None
        if done:
            self.late_outcomes -= {
                seen for seen in before if start is None or seen[1] >= _to_epoch_ms(start)
            }
        return done

    def _lookback_start(self) -> datetime | None:
        mark = self.fetch_watermark()
        return None if mark is None else mark - timedelta(seconds=LOOKBACK_S)

    def fetch_watermark(self) -> datetime | None:
        """Return the watermark, or None if there is none."""
        found = sql.fetch_rows(self.database, "SELECT processed_through FROM leadloop.watermarks")
        return found[0]["processed_through"] if found else None

    def wait_to_settle(self) -> None:
        """Sleep for the settle time."""
        if self.settle_s:
            time.sleep(self.settle_s + 0.05)

    def wait_a_second(self) -> None:
        """Sleep until the vendor's clock, in whole seconds, is past the latest outcome."""
        time.sleep(self.settle_s + 1.05)

    def count_requests(self) -> None:
        """Add the vendor's requests to the counters."""
        requests = self.vendor.requests
        COUNTERS["requests"] += len(requests)
        COUNTERS["429 caused by leadloop"] += sum(
            entry.status == 429 and entry.fault is None for entry in requests
        )


def _to_epoch_ms(moment: datetime) -> float:
    return moment.timestamp() * 1000
