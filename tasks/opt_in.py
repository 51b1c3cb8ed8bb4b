"""Withdrawal of opt-outs by a person, for `leadloop opt-in`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db import campaigns, opt_ins, suppressed_numbers
from db.database import Connection, Database
from leadloop.core.errors import UsageError
from leadloop.core.opt_ins import find_refusal
from leadloop.core.phones import hash_raw_number
from leadloop.settings import Settings


@dataclass(frozen=True, kw_only=True)
class OptInResult:
    """The leads that opted in, and those whose number stays suppressed, with the reason."""

    opted_in: Sequence[str]
    suppressed: Mapping[str, str]


def opt_in_leads(
    database: Database,
    settings: Settings,
    campaign_id: str,
    lead_ids: Sequence[str],
    reason: str,
) -> OptInResult:
    """Withdraw the opt-outs of leads, in one transaction; leads that were cancelled are new again.

    A number stays suppressed while another lead with it has opted out.

    Raises:
        UsageError: a lead has not opted out, may have been disabled at the vendor, or was
            forgotten; or no reason is given. Nothing was changed.
    """
    if not reason.strip():
        raise UsageError("--because is empty: write why the opt-out does not count")
    ids = list(dict.fromkeys(lead_ids))
    # Others with the same number are named, also before a push has indexed them.
    region = settings.default_region
    while database.run(suppressed_numbers.index_opted_out, region=region):
        pass
    with database.transaction() as connection:
        rules = settings.campaign_rules()
        (campaign,) = campaigns.select_campaigns(connection, [campaign_id], rules)
        states = opt_ins.lock_opt_outs(connection, campaign_id, ids)
        refusals = [f"{state.lead_id} {why}" for state, _ in states if (why := find_refusal(state))]
        if refusals:
            raise UsageError(f"nothing was changed: {'; '.join(refusals)}")
        secret = suppressed_numbers.get_hash_key(connection)
        keys = {
            state.lead_id: key
            for state, number in states
            if (key := hash_raw_number(secret, number, campaign.default_region))
        }
        opt_ins.record_opt_ins(
            connection, campaign_id, ids, reason.strip(), number_keys=list(keys.values())
        )
        suppressed = _find_suppressed(connection, keys)
    return OptInResult(opted_in=ids, suppressed=suppressed)


def _find_suppressed(connection: Connection, keys: Mapping[str, bytes]) -> dict[str, str]:
    """Return why numbers stay suppressed, by lead id; `keys`: their hashes by lead id."""
    lines = {}
    for lead_id, key in keys.items():
        if holders := opt_ins.list_number_holders(connection, key):
            named = ", ".join(map(str, holders))
            lines[lead_id] = (
                f"the phone number of {lead_id} stays suppressed, so no push sends it: {named}"
                " opted out with the same number"
            )
    return lines
