"""Trials of windows with a vendor that the sandbox is not: one that ignores bounds, or has none."""

from datetime import UTC, datetime

import pytest

from db.database import Database
from leadloop.settings import Settings
from tasks.context import ApiContext, open_api_context
from tasks.window_trial import ProcessedLead, find_processed, find_units
from tests.jobs import HOST
from tests.quirky_api import Query, QuirkyApi, build_page

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_AT = datetime(2026, 1, 5, 9, 0, 1, tzinfo=UTC)
_LEAD = ProcessedLead(lead_id="x", processed_at=_AT, time_format="ISO 8601")
_ROW = {"lead_id": "x", "processed_at": int(_AT.timestamp() * 1000)}


def units(context: ApiContext) -> list[str]:
    """Find the units of the campaign."""
    (campaign,) = context.select_campaigns(["C1"])
    return list(find_units(context.api, campaign, _LEAD))


def test_bounds_that_are_ignored_show_a_lead_in_both_units(
    odd: QuirkyApi, database: Database
) -> None:
    """So nothing is concluded from either."""
    odd.answer = lambda _: {"count": 1, "results": [_ROW]}
    with open_api_context(Settings.load(), HOST) as context:
        assert units(context) == ["ms", "s"]


def test_a_window_that_shows_others_alone_has_no_unit(odd: QuirkyApi, database: Database) -> None:
    """A row of somebody else, or no row at all, is no proof."""
    odd.answer = lambda _: {"count": 2, "results": [{**_ROW, "lead_id": "y"}, None]}
    with open_api_context(Settings.load(), HOST) as context:
        assert units(context) == []


def test_a_lead_of_the_listing_will_do(odd: QuirkyApi, database: Database) -> None:
    """Nobody has to wait until the team was called; odd rows are passed over."""

    def answer(query: Query) -> dict[str, object]:
        return {"count": 4, "results": [None, {}, {"lead_id": "x"}, {**_ROW, "lead_id": 17}]}

    odd.answer = answer
    with open_api_context(Settings.load(), HOST) as context:
        found = find_processed(context.api, "C1", [])
    assert found is not None
    assert (found.lead_id, found.processed_at) == ("17", _AT)
    odd.answer = lambda query: build_page([], query)
    with open_api_context(Settings.load(), HOST) as context:
        assert find_processed(context.api, "C1", []) is None
