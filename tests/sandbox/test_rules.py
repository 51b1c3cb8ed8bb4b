import dataclasses

import pytest

from leadloop.sandbox import Rules


def test_rules_come_from_texts() -> None:
    """The command line's key=value texts, of each type."""
    reading = ["shows_unprocessed=no", "order=lead_id", "links=correct", "late_share=0.5"]
    lists = ["campaigns=C1:One,C2", "tokens=a,b"]
    rules = Rules.from_texts(["max_batch=10", "rate_limit=5/2.5", "pace=none", *reading, *lists])
    assert (rules.max_batch, rules.rate_limit, rules.pace) == (10, (5, 2.5), None)
    assert (rules.shows_unprocessed, rules.order, rules.late_share) == (False, "lead_id", 0.5)
    assert (rules.campaigns, rules.tokens) == ({"C1": "One", "C2": "C2"}, ("a", "b"))
    flaws = Rules.from_texts(["doubled=a,b", "redacted=c", "hidden=", "redacted_as=deleted"])
    assert (flaws.doubled, flaws.redacted, flaws.hidden) == (("a", "b"), ("c",), ())
    assert Rules.from_texts([]).rate_limit == (100, 60.0)
    assert Rules().rate_limit is None


@pytest.mark.parametrize(
    "text",
    [
        "max_batch",
        "max_batch=x",
        "max_batch=0",
        "nonsense=1",
        "order=up",
        "rate_limit=5",
        "rate_limit=0/5",
        "shows_unprocessed=perhaps",
        "pace=-1",
        "late_share=2",
        "campaigns={x",
        "max_page=0",
        "page_above_max=404",
        "max_answer_rows=0",
        "max_answer_bytes=-1",
        "answer_above_max=200",
        "redacted_as=nothing",
        "ties=random",
        "lead_id_answer=decimal",
        "time_format=minutes",
    ],
)
def test_a_wrong_text_is_rejected_in_one_line(text: str) -> None:
    """One clear line, which the command line can print."""
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        Rules.from_texts([text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["tokens=", "pace=nan", "late_by=inf", "rate_limit=1/nan"])
def test_a_rule_that_cannot_be_kept_is_refused(rule: str) -> None:
    """In one line that names it, before anything listens."""
    with pytest.raises(ValueError, match=rule.partition("=")[0]):
        Rules.from_texts([rule])


@pytest.mark.parametrize("name", ["doubled", "hidden", "redacted", "tokens"])
def test_a_list_holds_texts(name: str) -> None:
    """A JSON list of numbers is refused: ids are compared as texts."""
    with pytest.raises(ValueError, match=name):
        Rules.from_json({name: [17]}, Rules())
    assert getattr(Rules.from_json({name: ["17"]}, Rules()), name) == ("17",)


def test_every_rule_is_described_as_it_is_written() -> None:
    """What the help lists can be typed as it stands, and means the defaults."""
    lines = [line.partition("  ")[0] for line in Rules.describe_rules()]
    assert Rules.from_texts(lines) == Rules.from_texts([])
    assert len(lines) == len(dataclasses.fields(Rules))
