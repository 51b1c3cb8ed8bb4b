"""Whatever happens to the source between pushes, the vendor has each of its rows once."""

import json
from contextlib import suppress
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import disable_leads, push_leads
from tests.state_machines import run_fixed_examples

_IDS = st.sampled_from([f"L{number}" for number in range(6)])
_STATES = st.sampled_from(["NY", "CA", "??"])
_NAMES = count(1)


class Source(RuleBasedStateMachine):
    """The team writes its table and people opt out, while pushes come and go."""

    database: ClassVar[Database]
    vendor: ClassVar[SandboxHandle]

    def __init__(self) -> None:
        super().__init__()
        self.campaign = f"C{next(_NAMES)}"
        self.values = count(1)
        self.table: dict[str, dict[str, str]] = {}
        self.out: set[str] = set()
        self.sent: dict[str, dict[str, str]] = {}
        sql.execute(
            self.database,
            f"CREATE TABLE crm.{self.campaign} (lead_id text PRIMARY KEY, phone_number text,"
            " contact_name text, state_code text, value text)",
        )
        factories.add_campaign(
            self.database, self.campaign, source=f"crm.{self.campaign}", batch_size=2
        )

    @rule(lead_id=_IDS, state=_STATES)
    def writes(self, lead_id: str, state: str) -> None:
        """A row is inserted, or changed where it is there."""
        # A number of its own in each campaign, so that opt-outs by number do not cross.
        phone = factories.build_phone(int(self.campaign[1:]) * 10 + int(lead_id[1:]))
        row = {"state_code": state, "value": str(next(self.values)), "phone_number": phone}
        self.table[lead_id] = row
        sql.execute(
            self.database,
            f"""INSERT INTO crm.{self.campaign}
                VALUES (:lead_id, :phone_number, 'Ann', :state_code, :value)
                ON CONFLICT (lead_id) DO UPDATE SET state_code = :state_code, value = :value""",
            lead_id=lead_id,
            **row,
        )

    @rule(lead_id=_IDS)
    def deletes(self, lead_id: str) -> None:
        """A row goes, if it is there."""
        self.table.pop(lead_id, None)
        sql.execute(
            self.database, f"DELETE FROM crm.{self.campaign} WHERE lead_id = :lead", lead=lead_id
        )

    @rule(lead_id=_IDS)
    def opts_out(self, lead_id: str) -> None:
        """Somebody wants no calls, whether or not there is a row or a lead."""
        if lead_id not in self.out:
            self.out.add(lead_id)
            factories.add_opt_outs(self.database, lead_id, campaign=self.campaign)

    @rule()
    def disable(self) -> None:
        """`disable_leads()`: it must not undo what keeps a row from being sent."""
        disable_leads(campaigns=[self.campaign])

    @rule()
    def requeue(self) -> None:
        """A person has everything that was refused tried again."""
        sql.execute(
            self.database,
            "UPDATE leadloop.leads SET status = 'new'"
            " WHERE campaign_id = :campaign AND status = 'rejected'",
            campaign=self.campaign,
        )

    @rule()
    def push_in_vain(self) -> None:
        """The vendor takes nothing: what was taken from the source stays `new` for a while."""
        self.vendor.add_fault(route="create", when="before", kind="status", status=403, every=1)
        with suppress(CampaignsFailed):
            push_leads(campaigns=[self.campaign])
        self.vendor.clear_faults()

    @rule(lead_id=_IDS, vanishes=st.booleans())
    def is_taken_and_then_another(self, lead_id: str, vanishes: bool) -> None:
        """What the other rules would rarely do one after the other."""
        self.writes(lead_id, "NY")
        self.push_in_vain()
        if vanishes:
            self.deletes(lead_id)
        else:
            self.writes(lead_id, "CA")

    @rule()
    def push(self) -> None:
        """`push_leads()`: what can be sent and was not is sent, as it is now."""
        push_leads(campaigns=[self.campaign])
        for lead_id, row in self.table.items():
            if lead_id not in self.out | self.sent.keys() and row["state_code"] != "??":
                self.sent[lead_id] = row

    @invariant()
    def the_vendor_has_what_it_should(self) -> None:
        """Each row once, none that had vanished or opted out, with the values of that push."""
        held = {
            lead.lead_id: {
                "state_code": lead.state_code,
                "phone_number": lead.phone_number,
                "value": json.loads(lead.custom or b"{}").get("value"),
            }
            for lead in self.vendor.store.leads(self.campaign)
        }
        assert held == self.sent
        assert set(self.vendor.store.creations(self.campaign).values()) <= {1}


@pytest.mark.usefixtures("environment", "quick_retries")
@pytest.mark.timeout(0)
def test_the_vendor_has_each_row_once(database: Database, vendor: SandboxHandle) -> None:
    """Never one that had vanished or opted out before it was sent, and each as it was when sent."""
    sql.execute(database, "CREATE SCHEMA crm")
    run_fixed_examples(Source, database, vendor, max_examples=12)
