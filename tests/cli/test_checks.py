"""Checks are collected one by one; one that fails ends no other."""

from leadloop.cli.checks import Checklist
from leadloop.core.errors import RunError


def test_an_error_is_the_detail_of_its_check() -> None:
    """The next check is made all the same."""
    checks = Checklist()
    with checks.record("one") as one:
        raise RunError("it is broken")
    with checks.record("two") as two:
        two.detail = "fine"
    assert one.failed
    assert [check.as_json() for check in checks] == [
        {"check": "one", "ok": False, "warns": False, "detail": "it is broken"},
        {"check": "two", "ok": True, "warns": False, "detail": "fine"},
    ]
