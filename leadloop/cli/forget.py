"""`leadloop forget`: a person has asked for their data to be removed."""

import logging
from collections.abc import Sequence

from db import campaigns, erasure, runs, suppression
from db.database import Connection, Database
from leadloop.core.errors import InvalidLead, UsageError
from leadloop.core.phones import format_e164, hash_phone_number
from leadloop.settings import Settings


def forget_leads(
    database: Database, settings: Settings, campaign_id: str, lead_ids: Sequence[str]
) -> dict[str, int]:
    """Remove the personal data of leads, and see to it that they are never called again.

    Their numbers stay suppressed, as keyed hashes; the vendor is told with the next disable. A lead
    that was on its way when its run died is in doubt from here on, and no longer on its way.

    Returns:
        How many were `forgotten`.

    Raises:
        UsageError: an id of which nothing is known, or a lead that a run is sending at this moment.
            Then none is forgotten.
    """
    runs.recover_dead_runs(database, logging.getLogger(__name__).warning)
    with database.transaction() as connection:
        (campaign,) = campaigns.select_campaigns(
            connection, [campaign_id], settings.campaign_rules()
        )
        found = erasure.lock_for_erasure(connection, campaign_id, lead_ids)
        missing = set(lead_ids) - set(found.known)
        if missing:
            raise UsageError(
                f"nothing is known of {', '.join(sorted(missing))} in campaign {campaign_id}"
            )
        if found.sending:
            raise UsageError(
                f"a run is sending {', '.join(found.sending)} at this moment: try again when"
                " it is done"
            )
        _suppress_numbers(connection, campaign_id, found.known, campaign.default_region)
        erasure.erase_leads(connection, campaign_id, found.known)
    return {"forgotten": len(found.known)}


def _suppress_numbers(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], region: str
) -> None:
    secret = suppression.get_hash_key(connection)
    numbers = suppression.list_known_numbers(connection, campaign_id, lead_ids, region=region)
    suppression.index_numbers(connection, [(lead, _key_of(lead, secret)) for lead in numbers])


def _key_of(lead: suppression.OptedOutNumber, secret: bytes) -> bytes | None:
    try:
        return hash_phone_number(secret, format_e164(lead.phone_number or "", lead.region))
    except InvalidLead:
        return None
