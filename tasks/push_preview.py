"""What a push would do: the same leads and the same checks, in a transaction that only looks."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from db import push_preview, source, suppression
from db.database import Connection, Database
from db.push_preview import Planned
from leadloop.core.campaigns import Campaign
from leadloop.core.leads import InvalidLead, Sendable, e164, prepare
from leadloop.core.phones import NUMBER_OPTED_OUT, number_key
from leadloop.core.push_preview import Plan
from leadloop.settings import Settings
from tasks.source_sync import copy_source, opened_reader

_AT_ONCE = 1000


def plan_push(database: Database, campaign: Campaign, settings: Settings) -> dict[str, Any]:
    """What a push of the campaign would do now. Nothing is sent, and nothing written.

    Args:
        database: where the leads are.
        campaign: whose.
        settings: the login that reads sources, and the region of numbers of campaigns that have
            none of their own.

    Returns:
        What `leadloop.core.push_preview.Plan` says.

    Raises:
        SourceTrouble: its source cannot be used.
    """
    with database.apart() as connection:
        source.be_patient(connection, campaign.source_timeout_s)
        if campaign.source is not None:
            with opened_reader(settings, database) as reader:
                copy_source(reader, connection, campaign)
        with push_preview.looking(connection):
            return _Planner(connection, campaign, settings.default_region).plan()


class _Planner:
    """Goes through the leads of one campaign; keeps counts and keys of numbers, no lead."""

    def __init__(self, connection: Connection, campaign: Campaign, region: str) -> None:
        self._connection = connection
        self._campaign = campaign
        self._has_source = campaign.source is not None
        self._plan = Plan()
        self._secret = suppression.key(connection)
        self._to_be_noted = set() if campaign.sends_opted_out_numbers else self._noted(region)

    def plan(self) -> dict[str, Any]:
        """Look at every lead once."""
        rows = push_preview.planned(
            self._connection, self._campaign.campaign_id, has_source=self._has_source
        )
        while chunk := list(islice(rows, _AT_ONCE)):
            self._send(list(self._checked(chunk)))
        return self._plan.as_json(self._campaign.batch_size)

    def _checked(self, chunk: Sequence[Planned]) -> Iterator[Sendable]:
        """Those that pass the checks; the others are counted."""
        for planned in chunk:
            self._plan.found(planned.kind)
            if not planned.is_lead:
                continue
            if planned.opted_out:
                self._plan.cancel()
                continue
            try:
                yield prepare(planned.lead, self._campaign)
            except InvalidLead as error:
                self._plan.refuse(str(error))

    def _send(self, leads: Sequence[Sendable]) -> None:
        keys = {lead.lead_id: number_key(self._secret, lead.e164) for lead in leads if lead.e164}
        suppressed = self._suppressed(list(keys.values()))
        for lead in leads:
            if keys.get(lead.lead_id) in suppressed:
                self._plan.cancel(NUMBER_OPTED_OUT)
            else:
                self._plan.send(lead)

    def _suppressed(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which numbers have opted out, those that a push would note first among them."""
        if self._campaign.sends_opted_out_numbers:
            return set()
        noted, _ = suppression.look(self._connection, keys)
        return noted | self._to_be_noted.intersection(keys)

    def _noted(self, region: str) -> set[bytes]:
        """The numbers that a push would note before it sends: of leads that opted out lately."""
        numbers = {
            self._key_of(lead.phone_number, lead.region)
            for lead in suppression.all_to_note(self._connection, region=region)
        }
        campaign_id, own = self._campaign.campaign_id, self._campaign.default_region
        rows = push_preview.opted_out(self._connection, campaign_id, has_source=self._has_source)
        numbers |= {self._key_of(row.lead.phone_number, own) for row in rows if row.is_lead}
        return {key for key in numbers if key is not None}

    def _key_of(self, number: str | None, region: str) -> bytes | None:
        try:
            return number_key(self._secret, e164(number or "", region))
        except InvalidLead:
            return None
