"""Rows of an opt-out source: what a lead id or a phone number in one must be to count."""

from leadloop.core.errors import InvalidLead
from leadloop.core.phones import read_opted_out_number
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH
from leadloop.core.unseen_characters import is_clean_id, strip_unseen

#: The longest phone number that is read, in characters.
MAX_NUMBER_LENGTH = 255

#: The reason of rows that name nobody.
NAMES_NOBODY = "neither a lead_id nor a phone_number"


def check_opt_out_id(lead_id: str) -> str:
    """Return a lead id that can be that of a lead.

    Raises:
        InvalidLead: no lead with this id would ever be sent.
    """
    if len(lead_id) > MAX_LEAD_ID_LENGTH:
        raise InvalidLead(f"lead_id: more than {MAX_LEAD_ID_LENGTH} characters")
    if not is_clean_id(lead_id):
        raise InvalidLead("lead_id: has a blank at an end or an invisible character")
    return lead_id


def normalize_opt_out_number(text: str, region: str) -> str:
    """Return a phone number in E.164; a number without a country code is one of the region.

    Raises:
        InvalidLead: it is no number that a lead could have.
    """
    if len(text) > MAX_NUMBER_LENGTH:
        raise InvalidLead(f"phone_number: more than {MAX_NUMBER_LENGTH} characters")
    if not (number := strip_unseen(text)):
        raise InvalidLead("phone_number: missing")
    return read_opted_out_number(number, region)
