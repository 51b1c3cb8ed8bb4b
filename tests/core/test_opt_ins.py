"""Which opt-outs a person may withdraw."""

from dataclasses import replace

import pytest

from leadloop.core.opt_ins import OptOutState, find_refusal

_UNSENT = OptOutState(
    lead_id="a",
    lead_status="cancelled",
    opted_out=True,
    has_request=True,
    was_sent=False,
    is_unknown=False,
    is_forgotten=False,
)


@pytest.mark.parametrize("has_request", [True, False])
@pytest.mark.parametrize("opted_out", [True, False])
def test_an_opt_out_that_was_not_sent_can_be_withdrawn(has_request: bool, opted_out: bool) -> None:
    """Also if its row was deleted, or if the lead was cancelled for its number."""
    assert find_refusal(replace(_UNSENT, has_request=has_request, opted_out=opted_out)) is None


def test_one_that_names_no_lead_can_be_withdrawn() -> None:
    """It was mistyped: the vendor was told to disable a lead that does not exist."""
    mistyped = replace(_UNSENT, lead_status=None, opted_out=False, was_sent=True, is_unknown=True)
    assert find_refusal(mistyped) is None


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(_UNSENT, was_sent=True, lead_status="created"), "no way back"),
        (replace(_UNSENT, is_forgotten=True), "was forgotten"),
        (
            replace(_UNSENT, has_request=False, opted_out=False, lead_status="new"),
            "has not opted out",
        ),
    ],
)
def test_others_cannot(state: OptOutState, reason: str) -> None:
    """The reason is given."""
    assert reason in (find_refusal(state) or "")
