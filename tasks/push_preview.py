"""A dry run of a push: the same leads and the same checks, in a read-only transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from db import learned_limits, opt_out_source, push_preview, source, suppressed_numbers
from db.database import Connection, Database
from db.opt_out_source import OPT_OUT_STAGING
from db.push_preview import PreviewRow
from db.unreadable_rows import without_unconvertible
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import InvalidLead
from leadloop.core.leads import PreparedLead, build_too_old_reason, prepare_lead
from leadloop.core.phones import NUMBER_OPTED_OUT_REASON, hash_phone_number, hash_raw_number
from leadloop.core.push_preview import PushPreview
from leadloop.core.source_requirements import (
    UnreadableRows,
    find_lead_source,
    find_opt_out_source,
)
from leadloop.settings import Settings
from tasks.batch_limits import BatchLimits
from tasks.opt_out_sync import find_leads_with_numbers, iter_new_entries, stage_opt_outs
from tasks.source_sync import open_source_database, stage_source, warn_if_hidden

_CHUNK_ROWS = 1000


def preview_push(
    database: Database, campaign: Campaign, settings: Settings, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Return what a push of the campaign would do now; send nothing and write nothing.

    Args:
        database: the database with the leads.
        campaign: the campaign.
        settings: the login that reads sources, and the default region of phone numbers.
        warn: is called if row level security may hide the rows of the source.

    Returns:
        The counts of `leadloop.core.push_preview.PREVIEW_COUNTS`, the reasons, the first lead ids
        of each, and a sample.

    Raises:
        SourceError: the campaign's source cannot be used.
        RunError: the campaign's default region is no region.
    """
    campaign.require_region()
    leads_named, opt_outs_named = find_lead_source(campaign), find_opt_out_source(campaign)
    with database.dedicated() as connection:
        source.set_read_limits(connection, campaign.source_timeout_s)
        unreadable = UnreadableRows()
        if leads_named is not None:
            with open_source_database(settings, database) as reader:
                unreadable = stage_source(reader, connection, leads_named, warn).unreadable
            with source.translate_comparison_errors(leads_named), database.translate_errors():
                _, unconvertible = without_unconvertible(
                    connection, partial(push_preview.check_convertible, connection)
                )
            unreadable += unconvertible
        opt_outs = _NewOptOuts()
        if opt_outs_named is not None:
            with open_source_database(settings, database) as reader:
                table = source.inspect_source(reader, opt_outs_named)
                refused = stage_opt_outs(reader, connection, database, campaign, table)
                warn_if_hidden(reader, connection, opt_outs_named, table, OPT_OUT_STAGING, warn)
            opt_outs = _read_opt_outs(connection, campaign, refused.count)
        with push_preview.read_only_snapshot(connection):
            builder = _PreviewBuilder(connection, campaign, settings.default_region, opt_outs)
            return builder.build_preview(unreadable.count)


@dataclass(frozen=True, kw_only=True)
class _NewOptOuts:
    """What is new in a campaign's opt-out source: how many count, and how many are refused."""

    amount: int = 0
    refused: int = 0


def _read_opt_outs(connection: Connection, campaign: Campaign, refused: int) -> _NewOptOuts:
    """Read staged opt-outs as a push would, and note their numbers in the staging table.

    `refused`: the rows that could not be staged.
    """
    with connection.begin():
        secret = suppressed_numbers.get_hash_key(connection)
    amount = 0
    for chunk in iter_new_entries(connection, secret, campaign.default_region):
        with connection.begin():
            opt_out_source.note_numbers(connection, chunk.numbers)
        amount += len(chunk.lead_ids) + len(chunk.numbers)
        refused += len(chunk.refused)
    return _NewOptOuts(amount=amount, refused=refused)


class _PreviewBuilder:
    """The preview of one campaign; keeps counts and hashes of phone numbers, but no lead."""

    def __init__(
        self, connection: Connection, campaign: Campaign, region: str, opt_outs: _NewOptOuts
    ) -> None:
        self._connection = connection
        self._opt_outs = opt_outs
        self._campaign = campaign
        self._region = region
        self._has_source = campaign.source is not None
        self._has_opt_outs = campaign.opt_out_source is not None
        limits = BatchLimits(learned_limits.get_learned_limits(connection, campaign.campaign_id))
        self._preview = PushPreview(
            batch_size=limits.cap_leads(campaign.batch_size),
            batch_bytes=limits.cap_bytes(campaign.batch_bytes),
        )
        self._hash_secret = suppressed_numbers.get_hash_key(connection)
        self._unindexed_numbers = (
            set() if campaign.sends_opted_out_numbers else self._load_unindexed_numbers(region)
        )
        if self._has_opt_outs:
            self._unindexed_numbers |= opt_out_source.list_number_keys(connection)

    def build_preview(self, unreadable: int) -> dict[str, Any]:
        """Check every lead once and return the counts.

        `unreadable`: the rows of the source that could not be read.
        """
        for _ in range(unreadable):
            self._preview.add_source_row("unreadable")
        if self._has_opt_outs:
            self._count_opt_outs()
        rows = push_preview.iter_rows(
            self._connection,
            self._campaign.campaign_id,
            has_source=self._has_source,
            opts_out_removed=self._campaign.on_source_removal == "opt_out",
            has_opt_outs=self._has_opt_outs,
            max_lead_bytes=self._campaign.batch_bytes,
            max_lead_age_s=self._campaign.max_lead_age_s,
        )
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            self._count_leads(chunk)
        return self._preview.to_json()

    def _count_opt_outs(self) -> None:
        """Count what is new in the opt-out source, and the sent leads that it opts out."""
        with_numbers = find_leads_with_numbers(self._connection, self._campaign, self._hash_secret)
        self._preview.add_opt_outs(
            opt_outs=self._opt_outs.amount,
            to_disable=opt_out_source.count_sent(
                self._connection, self._campaign.campaign_id, with_numbers
            ),
            refused=self._opt_outs.refused,
        )

    def _count_leads(self, chunk: Sequence[PreviewRow]) -> None:
        """Count the leads of a chunk that would be sent, refused or cancelled."""
        leads: list[PreparedLead] = []
        for row in chunk:
            self._preview.add_source_row(row.kind)
            if not row.will_be_sent:
                continue
            if row.opted_out:
                self._preview.add_cancelled(row.lead.lead_id)
                continue
            try:
                leads.append(self._check_lead(row))
            except InvalidLead as error:
                self._preview.add_refused(row.lead.lead_id, str(error))
        hashes = {
            lead.lead_id: hash_phone_number(self._hash_secret, lead.e164)
            for lead in leads
            if lead.e164
        }
        keys = list(hashes.values())
        if self._campaign.sends_opted_out_numbers:
            indexed = suppressed_numbers.find_named(
                self._connection, self._campaign.campaign_id, keys
            )
        else:
            indexed, _ = suppressed_numbers.find_suppressed(
                self._connection, keys, region=self._region
            )
        suppressed = indexed | self._unindexed_numbers.intersection(keys)
        for lead in leads:
            if hashes.get(lead.lead_id) in suppressed:
                self._preview.add_cancelled(lead.lead_id, NUMBER_OPTED_OUT_REASON)
            else:
                self._preview.add_sendable(lead)

    def _check_lead(self, row: PreviewRow) -> PreparedLead:
        """Check a lead as a push would.

        Raises:
            InvalidLead: it would be rejected.
        """
        max_age_s = self._campaign.max_lead_age_s
        if row.too_old and max_age_s is not None:
            raise InvalidLead(build_too_old_reason(max_age_s))
        return prepare_lead(row.lead, self._campaign)

    def _load_unindexed_numbers(self, region: str) -> set[bytes]:
        """Return the hashes of opted-out leads' numbers that a push would index before it sends."""
        hashes = {
            hash_raw_number(self._hash_secret, lead.phone_number, lead.region)
            for lead in suppressed_numbers.iter_unindexed(self._connection, region=region)
        }
        rows = push_preview.iter_opted_out_rows(
            self._connection,
            self._campaign.campaign_id,
            has_source=self._has_source,
            has_opt_outs=self._has_opt_outs,
            max_lead_bytes=self._campaign.batch_bytes,
        )
        hashes |= {
            hash_raw_number(self._hash_secret, row.lead.phone_number, self._campaign.default_region)
            for row in rows
            if row.will_be_sent
        }
        return {number_hash for number_hash in hashes if number_hash is not None}
