"""Erasure of a person's data on request, for `leadloop forget`."""

import logging
from collections.abc import Sequence

from db import campaigns, counts, erasure, runs, suppressed_numbers
from db.database import Database, DatabaseError
from leadloop.core.errors import UsageError
from leadloop.core.phones import hash_raw_number
from leadloop.settings import Settings


def forget_leads(
    database: Database, settings: Settings, campaign_id: str, lead_ids: Sequence[str]
) -> dict[str, int]:
    """Erase the personal data of leads, and suppress their numbers as keyed hashes.

    The next disable sends the opt-outs to the vendor. A lead that a dead run was sending becomes
    in doubt first, and can then be forgotten.

    Returns:
        How many were `forgotten`.

    Raises:
        RunError: the campaign's default region is no region, so no number can be suppressed.
        UsageError: an id is unknown, or a run is sending one of the leads now. No lead is
            forgotten then.
    """
    runs.recover_dead_runs(database, logging.getLogger(__name__).warning)
    with database.transaction() as connection:
        rules = settings.campaign_rules()
        (campaign,) = campaigns.select_campaigns(connection, [campaign_id], rules)
        campaign.require_region()
        locked = erasure.lock_for_erasure(connection, campaign_id, lead_ids)
        if unknown := set(lead_ids) - set(locked.known):
            raise UsageError(
                f"nothing is known of {', '.join(sorted(unknown))} in campaign {campaign_id}"
            )
        if locked.sending:
            raise UsageError(
                f"a run is sending {', '.join(locked.sending)} now; nothing was forgotten: try"
                " again when the run has finished"
            )
        hash_key = suppressed_numbers.get_hash_key(connection)
        numbers = suppressed_numbers.list_known_numbers(
            connection, campaign_id, locked.known, region=campaign.default_region
        )
        suppressed_numbers.index_numbers(
            connection,
            [(lead, hash_raw_number(hash_key, lead.phone_number, lead.region)) for lead in numbers],
        )
        erasure.erase_leads(connection, campaign_id, locked.known)
    # The vendor's reason to reject a lead may name the person, and is summed.
    try:
        counts.fold_all_counts(database)
    except DatabaseError as error:
        logging.getLogger(__name__).warning(
            "everything is erased but reasons of rejections that the vendor wrote: they stay in the"
            " kept sums until the next run: %s",
            error,
        )
    return {"forgotten": len(locked.known)}


def list_similar_leads(
    database: Database, campaign_id: str, lead_ids: Sequence[str]
) -> dict[str, list[str]]:
    """List other leads of which data is known, and whose ids may be those of forgotten leads.

    The vendor may write an id otherwise: with other case, blanks or leading zeros, or as a number.

    Returns:
        The other ids by the forgotten id.
    """
    with database.transaction() as connection:
        return erasure.find_similar(connection, campaign_id, lead_ids)
