"""Leads whose rows have left the source after they were sent: how many may opt out because of it.

An opt-out cannot be undone at the vendor. So rows that vanish in bulk, as after a wrong DELETE or a
view that was changed, opt nobody out before a person has agreed.
"""

#: Leads that may opt out within 24 hours, however few the campaign has.
MIN_LIMIT = 20
#: One of this number of the campaign's leads may opt out within 24 hours.
LIMIT_DIVISOR = 100


def may_opt_out(removed: int, *, recent: int, leads: int) -> bool:
    """Return whether leads may opt out without a person.

    Args:
        removed: the leads whose rows have left the source.
        recent: those that opted out for that in the last 24 hours.
        leads: all leads of the campaign.
    """
    return removed + recent <= max(MIN_LIMIT, leads // LIMIT_DIVISOR)
