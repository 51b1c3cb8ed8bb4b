"""Opt-ins: which opt-outs a person may withdraw."""

from dataclasses import dataclass

#: The reason of a lead that was cancelled because it opted out.
OPTED_OUT_REASON = "opted out before it was sent (leadloop opt-in withdraws an opt-out)"


@dataclass(frozen=True, kw_only=True)
class OptOutState:
    """What is known of a lead and its opt-out.

    Attributes:
        lead_id: the lead.
        lead_status: None: the lead has no row.
        opted_out: the lead's row is marked so; its opt-out may have been deleted since.
        has_request: the opt-out has a row.
        was_sent: a disable with the lead may have been sent to the vendor.
        is_unknown: neither a lead, nor a sent lead that was deleted, nor an outcome has this id.
        is_forgotten: the person's data was erased on request.
    """

    lead_id: str
    lead_status: str | None
    opted_out: bool
    has_request: bool
    was_sent: bool
    is_unknown: bool
    is_forgotten: bool


def find_refusal(state: OptOutState) -> str | None:
    """Return why a lead cannot opt in, or None."""
    if state.is_forgotten:
        return "was forgotten: the person's data is erased, and the opt-out stays"
    if not (state.has_request or state.opted_out or state.lead_status == "cancelled"):
        return "has not opted out"
    if state.was_sent and not state.is_unknown:
        return (
            "may have been disabled at the vendor, whose API has no way back: ask the vendor, or"
            " send the person under another lead_id in a campaign with sends_opted_out_numbers"
        )
    return None
