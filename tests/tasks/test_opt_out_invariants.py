"""Whatever becomes of the rows of an opt-out source: each that appears opts out, once."""

from itertools import count
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from db.database import Database
from leadloop.core.errors import UsageError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.opt_in import opt_in_leads
from tests import factories, sql
from tests.jobs import disable_leads, push_leads
from tests.state_machines import run_fixed_examples

_LEADS = st.integers(0, 3)
_NAMES = count(1)


class OptOutSource(RuleBasedStateMachine):
    """The team writes and deletes rows, leads come, people opt in, while runs come and go.

    The model: a row that was not there at the last read opts out its lead, or all leads with its
    number, those that come later included, until each of them opts in.
    """

    database: ClassVar[Database]
    vendor: ClassVar[SandboxHandle]

    def __init__(self) -> None:
        super().__init__()
        self.number = next(_NAMES)
        self.campaign = f"C{self.number}"
        self.rows: set[tuple[str | None, int | None]] = set()
        self.read: set[tuple[str | None, int | None]] = set()
        self.leads: set[str] = set()
        self.out: set[str] = set()
        self.numbers_out: set[int] = set()
        self.sent: set[str] = set()
        self.disabled: set[str] = set()
        sql.execute(
            self.database, f"CREATE TABLE crm.{self.campaign} (lead_id text, phone_number text)"
        )
        factories.add_campaign(
            self.database, self.campaign, opt_out_source=f"crm.{self.campaign}", batch_size=2
        )

    def phone(self, number: int) -> str:
        """Return one of the two numbers of the campaign."""
        return factories.build_phone(self.number * 10 + number)

    @rule(lead=_LEADS, by_number=st.booleans(), stands=st.booleans())
    def writes(self, lead: int, by_number: bool, stands: bool) -> None:
        """A row is written, perhaps a second time."""
        row = (None, lead % 2) if by_number else (f"L{lead}", None)
        if row in self.rows and not stands:
            return
        self.rows.add(row)
        sql.execute(
            self.database,
            f"INSERT INTO crm.{self.campaign} VALUES (:lead, :number)",
            lead=row[0],
            number=None if row[1] is None else self.phone(row[1]),
        )

    @rule(lead=_LEADS, by_number=st.booleans())
    def deletes(self, lead: int, by_number: bool) -> None:
        """A row goes, however often it stands there."""
        row = (None, lead % 2) if by_number else (f"L{lead}", None)
        self.rows.discard(row)
        sql.execute(
            self.database,
            f"""DELETE FROM crm.{self.campaign} WHERE lead_id IS NOT DISTINCT FROM :lead
                AND phone_number IS NOT DISTINCT FROM :number""",
            lead=row[0],
            number=None if row[1] is None else self.phone(row[1]),
        )

    @rule(lead=_LEADS)
    def inserts(self, lead: int) -> None:
        """A lead comes; every second one has the same number."""
        if f"L{lead}" not in self.leads:
            self.leads.add(f"L{lead}")
            row = factories.build_lead(f"L{lead}", phone_number=self.phone(lead % 2))
            factories.add_leads(self.database, row, campaign=self.campaign)

    @rule(lead=_LEADS)
    def opts_in(self, lead: int) -> None:
        """A person takes an opt-out back, where it was not sent to the vendor."""
        lead_id = f"L{lead}"
        try:
            opt_in_leads(self.database, Settings.load(), self.campaign, [lead_id], "a mistake")
        except UsageError:
            return
        self.out.discard(lead_id)
        if lead_id in self.leads:
            self.numbers_out.discard(lead % 2)

    def take(self) -> None:
        """Have what appeared opt out, and forget what is gone."""
        for lead_id, number in self.rows - self.read:
            if lead_id is not None:
                self.out.add(lead_id)
            elif number is not None:
                self.numbers_out.add(number)
                self.out |= {each for each in self.leads if int(each[1:]) % 2 == number}
        self.read = set(self.rows)

    @rule()
    def disable(self) -> None:
        """`disable_leads()` takes what is new, and has those disabled that were sent."""
        disable_leads(campaigns=[self.campaign])
        self.take()
        self.disabled |= self.sent & self.out

    @rule()
    def push(self) -> None:
        """`push_leads()` takes what is new, if there is anybody to send; sends the others."""
        statuses = sql.fetch_statuses(self.database, self.campaign)
        has_new = "new" in statuses.values()
        push_leads(campaigns=[self.campaign])
        if has_new:
            self.take()
        suppressed = self.numbers_out | {
            int(each[1:]) % 2 for each in self.out if each in self.leads
        }
        for lead_id, status in statuses.items():
            if (
                status == "new"
                and lead_id not in self.out
                and int(lead_id[1:]) % 2 not in suppressed
            ):
                self.sent.add(lead_id)

    @invariant()
    def nobody_is_sent_who_is_out(self) -> None:
        """And everybody else is, once; who was sent and is out is disabled, and nobody else."""
        assert self.vendor.store.creations(self.campaign) == dict.fromkeys(self.sent, 1)
        assert set(self.vendor.store.disabled(self.campaign)) == self.disabled

    @invariant()
    def each_is_an_opt_out_once(self) -> None:
        """As the model has it: nobody else, whether or not a row stands there."""
        assert set(sql.fetch_opt_outs(self.database, self.campaign)) == self.out


@pytest.mark.usefixtures("environment", "quick_retries")
@pytest.mark.timeout(0)
def test_each_row_that_appears_opts_out_once(database: Database, vendor: SandboxHandle) -> None:
    """For any sequence of rows that come and go, leads that come, opt-ins and runs."""
    sql.execute(database, "CREATE SCHEMA crm")
    run_fixed_examples(OptOutSource, database, vendor, max_examples=25)
