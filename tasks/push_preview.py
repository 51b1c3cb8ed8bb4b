"""What a push would do: the same leads and the same checks, in a transaction that only looks."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from db import push_preview, source, suppression
from db.database import Connection, Database
from db.push_preview import PreviewRow
from leadloop.core.campaign_rules import Campaign
from leadloop.core.leads import InvalidLead, PreparedLead, format_e164, prepare_lead
from leadloop.core.phones import NUMBER_OPTED_OUT_REASON, hash_phone_number
from leadloop.core.push_preview import PushPreview
from leadloop.settings import Settings
from tasks.source_sync import open_source_database, stage_source

_CHUNK_ROWS = 1000


def preview_push(database: Database, campaign: Campaign, settings: Settings) -> dict[str, Any]:
    """What a push of the campaign would do now. Nothing is sent, and nothing written.

    Args:
        database: where the leads are.
        campaign: whose.
        settings: the login that reads sources, and the region of numbers of campaigns that have
            none of their own.

    Returns:
        What `leadloop.core.push_preview.Plan` says.

    Raises:
        SourceError: its source cannot be used.
    """
    with database.dedicated() as connection:
        source.set_read_limits(connection, campaign.source_timeout_s)
        if campaign.source is not None:
            with open_source_database(settings, database) as reader:
                stage_source(reader, connection, campaign)
        with push_preview.read_only_snapshot(connection):
            return _PreviewBuilder(connection, campaign, settings.default_region).build_preview()


class _PreviewBuilder:
    """Goes through the leads of one campaign; keeps counts and keys of numbers, no lead."""

    def __init__(self, connection: Connection, campaign: Campaign, region: str) -> None:
        self._connection = connection
        self._campaign = campaign
        self._has_source = campaign.source is not None
        self._preview = PushPreview()
        self._hash_secret = suppression.get_hash_key(connection)
        self._unindexed_numbers = (
            set() if campaign.sends_opted_out_numbers else self._load_unindexed_numbers(region)
        )

    def build_preview(self) -> dict[str, Any]:
        """Look at every lead once."""
        rows = push_preview.iter_rows(
            self._connection, self._campaign.campaign_id, has_source=self._has_source
        )
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            self._count_leads(list(self._select_sendable(chunk)))
        return self._preview.to_json(self._campaign.batch_size)

    def _select_sendable(self, chunk: Sequence[PreviewRow]) -> Iterator[PreparedLead]:
        """Those that pass the checks; the others are counted."""
        for planned in chunk:
            self._preview.add_source_row(planned.kind)
            if not planned.will_be_sent:
                continue
            if planned.opted_out:
                self._preview.add_cancelled()
                continue
            try:
                yield prepare_lead(planned.lead, self._campaign)
            except InvalidLead as error:
                self._preview.add_refused(str(error))

    def _count_leads(self, leads: Sequence[PreparedLead]) -> None:
        keys = {
            lead.lead_id: hash_phone_number(self._hash_secret, lead.e164)
            for lead in leads
            if lead.e164
        }
        suppressed = self._find_suppressed(list(keys.values()))
        for lead in leads:
            if keys.get(lead.lead_id) in suppressed:
                self._preview.add_cancelled(NUMBER_OPTED_OUT_REASON)
            else:
                self._preview.add_sendable(lead)

    def _find_suppressed(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which numbers have opted out, those that a push would note first among them."""
        if self._campaign.sends_opted_out_numbers:
            return set()
        noted, _ = suppression.find_suppressed(self._connection, keys)
        return noted | self._unindexed_numbers.intersection(keys)

    def _load_unindexed_numbers(self, region: str) -> set[bytes]:
        """The numbers that a push would note before it sends: of leads that opted out lately."""
        numbers = {
            self._hash_number(lead.phone_number, lead.region)
            for lead in suppression.iter_unindexed(self._connection, region=region)
        }
        campaign_id, own = self._campaign.campaign_id, self._campaign.default_region
        rows = push_preview.iter_opted_out_rows(
            self._connection, campaign_id, has_source=self._has_source
        )
        numbers |= {
            self._hash_number(row.lead.phone_number, own) for row in rows if row.will_be_sent
        }
        return {key for key in numbers if key is not None}

    def _hash_number(self, number: str | None, region: str) -> bytes | None:
        try:
            return hash_phone_number(self._hash_secret, format_e164(number or "", region))
        except InvalidLead:
            return None
