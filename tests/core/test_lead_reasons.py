"""Leads by the reason for which they are not sent."""

from leadloop.core.lead_reasons import LeadGroup, LeadReasons


def test_the_most_frequent_reason_comes_first_with_the_first_ids() -> None:
    """Each lead counts; of each reason a few ids are kept."""
    reasons = LeadReasons(max_ids=2)
    reasons.add_leads({"a": "no name"})
    reasons.add_leads(dict.fromkeys(("b", "c", "d"), "no number"))
    assert list(reasons.list_groups().items()) == [
        ("no number", LeadGroup(leads=3, lead_ids=["b", "c"])),
        ("no name", LeadGroup(leads=1, lead_ids=["a"])),
    ]
    assert reasons.total == 4


def test_reasons_beyond_the_first_fifty_are_one() -> None:
    """A vendor that words each reason in another way does not fill the memory."""
    reasons = LeadReasons(max_ids=1)
    reasons.add_leads({f"{number}": f"reason {number}" for number in range(60)})
    groups = reasons.list_groups()
    assert len(groups) == 51
    assert groups["other reasons"] == LeadGroup(leads=10, lead_ids=["50"])


def test_leads_that_are_taken_back_count_no_more() -> None:
    """Also those among the other reasons; a reason without a lead is none."""
    reasons = LeadReasons(max_ids=2)
    reasons.add_leads({f"{number}": f"reason {number}" for number in range(52)})
    reasons.remove_leads({"0": "reason 0", "51": "reason 51"})
    groups = reasons.list_groups()
    assert "reason 0" not in groups
    assert groups["other reasons"] == LeadGroup(leads=1, lead_ids=["50"])
    assert reasons.total == 50
