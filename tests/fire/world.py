"""One campaign on both sides, Postgres and the vendor, and what a test knows about it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from db.database import Database, DatabaseError
from leadloop.core.errors import RunError
from leadloop.sandbox import Handle, Rules
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.fire.tally import TALLY

#: Seconds that a poll reads again behind the watermark: the setting's default.
LOOKBACK_S = 900

Flow = Callable[..., dict[str, Any]]
Seen = tuple[str, int]
"""A lead and when it was processed (epoch ms), as the vendor shows it now."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """A lead as upstream inserted it; `good`: nobody has a reason to refuse it."""

    row: dict[str, Any]
    good: bool

    @property
    def phone(self) -> Any:
        """Its number as it was written."""
        return self.row["phone_number"]


@dataclass(kw_only=True)
class World:
    """Both sides, and what should be true of them.

    `never`: opted out before the vendor had them; `never_by_phone`: their number was, under another
    id. `late`: outcomes that showed after their time had been read. `told`: every outcome that the
    vendor has shown of a lead, by its time. `blamed`: good leads may have been refused.
    """

    database: Database
    vendor: Handle
    settle_s: int = 0
    leads: dict[str, Given] = field(default_factory=dict)
    opted_out: set[str] = field(default_factory=set)
    dead_phones: set[Any] = field(default_factory=set)
    never: set[str] = field(default_factory=set)
    never_by_phone: set[str] = field(default_factory=set)
    late: set[Seen] = field(default_factory=set)
    told: dict[str, dict[int, tuple[Any, ...]]] = field(default_factory=dict)
    blamed: bool = False
    highest: datetime | None = None

    def begin(self) -> None:
        """Empty both sides, and put the default rules in force."""
        tables = sql.fetch_rows(
            self.database,
            "SELECT format('leadloop.%I', tablename) AS name FROM pg_tables"
            # What the migrations put in stays.
            " WHERE schemaname = 'leadloop' AND tablename NOT IN ('alembic_version', 'number_key')",
        )
        names = ", ".join(row["name"] for row in tables)
        sql.execute(self.database, f"TRUNCATE {names}")
        self.vendor.reset()
        secrets = {"tokens", "client_id", "client_secret", "username", "password"}
        fresh = Rules(rate_limit=None, pace=None)
        self.vendor.change(**{k: v for k, v in vars(fresh).items() if k not in secrets})

    # What upstream does.

    def insert(self, lead: Given) -> None:
        """A new lead; one whose opt-out came first must never be sent."""
        lead_id = lead.row["lead_id"]
        factories.add_leads(self.database, lead.row)
        self.leads[lead_id] = lead
        TALLY["leads"] += 1
        if lead_id in self.opted_out:
            self._bury_phone(lead.phone)
        elif lead.phone in self.dead_phones:
            self.never_by_phone.add(lead_id)

    def opt_out(self, lead_id: str) -> None:
        """A person opts out; if the vendor does not have them by now, it must never get them."""
        factories.add_opt_outs(self.database, lead_id)
        self.opted_out.add(lead_id)
        TALLY["opt-outs"] += 1
        if self.vendor.books.lead(CAMPAIGN, lead_id) is None:
            self.never.add(lead_id)
        if lead_id in self.leads:
            self._bury_phone(self.leads[lead_id].phone)

    def _bury_phone(self, phone: Any) -> None:
        self.dead_phones.add(phone)
        has = self.vendor.books.creations(CAMPAIGN)
        self.never_by_phone |= {
            lead_id
            for lead_id, lead in self.leads.items()
            if lead.phone == phone and lead_id not in has
        }

    # What the vendor does.

    def process(self, lead_id: str, *, back_s: float, hidden_s: float = 0.0) -> None:
        """The vendor is done with a lead, so long ago, and shows it only so much later."""
        now = self.vendor.now()
        item: dict[str, Any] = {
            "campaign_id": CAMPAIGN,
            "lead_id": lead_id,
            "processed_at": now - int(back_s * 1000),
            "visible_at": now + int(hidden_s * 1000),
        }
        self.vendor.put([item])
        TALLY["outcomes"] += 1
        mark = self.watermark()
        if mark is not None and item["processed_at"] <= _ms(mark):
            self.late.add((lead_id, now - int(back_s * 1000)))
        self.note_outcomes()

    def note_outcomes(self) -> set[Seen]:
        """Remember every outcome of the vendor's; returns those that it shows by now."""
        shelf = self.vendor.books.shelf(CAMPAIGN)
        shown_from = self.vendor.now() - self.vendor.rules.lead_visible_after * 1000
        seen = set()
        for lead in shelf.processed if shelf else ():
            shown = self.vendor.books.outcome(shelf, lead) if shelf else None
            assert shown is not None
            facts = (str(shown.outcome_id), shown.outcome_name, float(shown.total_cost))
            self.told.setdefault(lead.lead_id, {})[self.as_shown(lead.due())] = facts
            if lead.created_at <= shown_from:
                seen.add((lead.lead_id, lead.due()))
        return seen

    def as_shown(self, at: int) -> int:
        """An epoch-ms time as exact as the vendor's answers are."""
        return at // 1000 * 1000 if self.vendor.rules.time_format == "s" else at

    # What we do.

    def attempt(self, flow: Flow, **more: Any) -> dict[str, Any] | None:
        """Run a flow; None where it failed, as it may while the vendor does."""
        TALLY["flow runs"] += 1
        try:
            return flow(campaigns=[CAMPAIGN], **more)
        except DatabaseError:
            raise
        except RunError:
            return None

    def read(self, flow: Flow, *, start: datetime | None = None, **more: Any) -> bool:
        """Run a flow that polls. Where it succeeds, what was late before it is so no more.

        Args:
            flow: the flow.
            start: where it begins to read; None: at the watermark less the lookback.
            more: the flow's parameters.
        """
        before, began = self.note_outcomes(), self.vendor.now()
        start = start or self._lookback()
        done = self.attempt(flow, **more) is not None
        if done:
            self.late -= {seen for seen in before if start is None or seen[1] >= _ms(start)}
        self.late |= {seen for seen in self.note_outcomes() - before if seen[1] < began}
        return done

    def _lookback(self) -> datetime | None:
        mark = self.watermark()
        return None if mark is None else mark - timedelta(seconds=LOOKBACK_S)

    def watermark(self) -> datetime | None:
        """Up to where everything is said to be stored."""
        found = sql.fetch_rows(self.database, "SELECT processed_through FROM leadloop.watermarks")
        return found[0]["processed_through"] if found else None

    def pass_time(self) -> None:
        """Let everything settle."""
        if self.settle_s:
            time.sleep(self.settle_s + 0.05)

    def pass_a_second(self) -> None:
        """Let what has just been processed be past by the vendor's clock, in whole seconds."""
        time.sleep(self.settle_s + 1.05)

    def end(self) -> None:
        """Add up what was done."""
        requests = self.vendor.requests
        TALLY["requests"] += len(requests)
        TALLY["429 of our own making"] += sum(
            entry.status == 429 and entry.fault is None for entry in requests
        )


def _ms(moment: datetime) -> float:
    return moment.timestamp() * 1000
