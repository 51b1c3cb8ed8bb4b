"""A campaign's own table: what is missing or wrong is named in one line."""

import pytest

from leadloop.core.source_requirements import SourceError, check_columns

_GOOD = {"lead_id": "text", "phone_number": "text", "ebr_datetime": "date", "city": "text"}


@pytest.mark.parametrize(
    ("changes", "without", "line"),
    [
        ({}, ["lead_id"], "'crm.leads' lacks the column lead_id: see docs/how-to/bring-your-own"),
        ({}, ["lead_id", "phone_number"], "lacks the columns lead_id, phone_number"),
        ({"ebr_datetime": "text"}, [], "ebr_datetime is text: it must be timestamptz"),
        ({"priority": "text"}, [], "priority is text: it must be an integer; a custom field needs"),
        (
            {"outcome_id": "text", "call_attempt_1": "text"},
            [],
            "reserves: call_attempt_1, outcome_id; rename them",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_explained(
    changes: dict[str, str], without: list[str], line: str
) -> None:
    """The line names the columns and the remedy."""
    columns = {name: kind for name, kind in {**_GOOD, **changes}.items() if name not in without}
    with pytest.raises(SourceError) as caught:
        check_columns("crm.leads", columns, ["phone_number"])
    assert line in str(caught.value)


def test_a_source_may_have_any_other_columns() -> None:
    """They become custom fields."""
    check_columns("crm.leads", _GOOD, ["phone_number"])
