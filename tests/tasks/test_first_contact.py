"""`leadloop first-contact`: what it learns of each kind of vendor, and what it never does."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from db.database import Database
from leadloop.core.errors import RunError, UsageError
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.first_contacts import Person, list_calls, process, run_contact
from tests.jobs import disable_leads, poll_outcomes, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


_OPT_OUT = "INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', '1')"
_PAUSE = "UPDATE leadloop.campaigns SET push_enabled = false"
_HOLD = "INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES ('C1', 'a test')"
_SPOIL = "UPDATE leadloop.leads SET phone_number = '12' WHERE lead_id = '1'"


@pytest.fixture(autouse=True)
def campaign(database: Database) -> None:
    """A campaign with three people of the team, and two others."""
    factories.add_campaign(database)
    factories.add_leads(database, "1", "2", "3", "8", "9")


def created(vendor: SandboxHandle) -> dict[str, int]:
    """Count how often the vendor has created each lead."""
    return dict(vendor.store.creations(factories.CAMPAIGN))


def column(database: Database, name: str) -> Any:
    """Return a column of the campaign's row."""
    return sql.fetch_value(database, f"SELECT {name} FROM leadloop.campaigns")


def test_a_contact_creates_the_named_people_alone(
    database: Database, vendor: SandboxHandle
) -> None:
    """Each once, the first one alone; the last one is disabled, and what was learned is kept."""
    person = Person()
    summary = run_contact(database, "1", "2", "3", person=person)
    assert created(vendor) == {"1": 1, "2": 1, "3": 1}
    # An empty one, the first lead, one without a number, the others.
    assert list_calls(vendor).count("create") == 4
    assert summary["leads"] == dict.fromkeys("123", "created")
    assert {key: sql.fetch_statuses(database)[key] for key in "89"} == dict.fromkeys("89", "new")
    assert sql.fetch_opt_outs(database) == {"3": "disabled"}
    assert summary["learned"] == {
        "empty_create": 'HTTP 400 {detail: "The list is empty."}',
        "lead_id_sent": "accepted as text",
        "lead_refusal": 'HTTP 400 {detail: "1 of 1 leads are invalid. Nothing was created.",'
        ' errors: [{index: number, lead_id: "3", reason: "phone_number: this field is required."}]}'
        "; the lead is rejected",
        "create_success": "HTTP 201 {created: number, errors: []}",
        "lead_id_shown": "as text",
        "times_shown": "milliseconds since 1970",
        "unprocessed_lead": summary["learned"]["unprocessed_lead"],
        "disable": "HTTP 201 {disabled: number, errors: []}; the opt-out is disabled",
    }
    assert summary["learned"]["unprocessed_lead"].startswith("shown, ")
    assert column(database, "shows_unprocessed") is True
    assert "AGAIN" not in "".join(person.asked)


def test_nothing_personal_is_printed_or_kept(database: Database, vendor: SandboxHandle) -> None:
    """Also where the vendor's reasons repeat it."""
    vendor.add_fault(
        route="create",
        kind="status",
        status=400,
        nth=2,
        detail=f"No: Ann 1 at {factories.build_lead('1')['phone_number']}",
    )
    person = Person()
    summary = run_contact(database, "1", "2", person=person)
    assert summary["learned"]["create_refusal"] == 'HTTP 400 {detail: "No: … at …"}'
    everything = repr((summary, person.asked, person.reported))
    assert "Ann" not in everything
    assert factories.build_lead("1")["phone_number"][-7:] not in everything


def test_a_second_contact_goes_on_where_the_first_one_ended(
    database: Database, vendor: SandboxHandle
) -> None:
    """Unit and bounds are known only once somebody was called; nothing is asked twice."""
    run_contact(database, "1", "2")
    process(vendor, "1")
    person = Person()
    learned = run_contact(database, "1", "2", person=person)["learned"]
    assert learned["window_unit"] == "ms"
    assert learned["bounds"] == "processed_after inclusive, processed_before inclusive"
    assert [asked.split()[0] for asked in person.asked] == ["Read", "Look"]
    assert created(vendor) == {"1": 1, "2": 1}
    assert poll_outcomes()["inserted"] == 1


@pytest.mark.parametrize(
    ("rules", "bounds"),
    [
        ({"after_inclusive": False}, "processed_after exclusive, processed_before inclusive"),
        ({"before_inclusive": False}, "processed_after inclusive, processed_before exclusive"),
    ],
)
def test_exclusive_bounds_are_seen(
    database: Database, vendor: SandboxHandle, rules: dict[str, Any], bounds: str
) -> None:
    """Whichever of the two they are."""
    vendor.change_rules(**rules)
    run_contact(database, "1", "2")
    process(vendor, "1")
    assert run_contact(database, "1", "2")["learned"]["bounds"] == bounds


def test_a_vendor_that_hides_unprocessed_leads(database: Database, vendor: SandboxHandle) -> None:
    """Then no lookup proves absence, and pushes know it from the start."""
    vendor.change_rules(shows_unprocessed=False)
    learned = run_contact(database, "1", "2")["learned"]
    assert learned["unprocessed_lead"] == "not shown within 0 s"
    assert column(database, "shows_unprocessed") is False
    assert created(vendor) == {"1": 1, "2": 1}


def test_a_lead_that_shows_late_is_waited_for(database: Database, vendor: SandboxHandle) -> None:
    """For the settle time, which is what absence is judged by."""
    sql.execute(database, "UPDATE leadloop.campaigns SET settle_s = 30")
    vendor.change_rules(lead_visible_after=0.3)
    learned = run_contact(database, "1")["learned"]
    assert learned["unprocessed_lead"].startswith("shown, ")
    assert column(database, "shows_unprocessed") is True


@pytest.mark.parametrize("agrees", [True, False])
def test_a_vendor_of_seconds(database: Database, vendor: SandboxHandle, agrees: bool) -> None:
    """The unit is set if the person agrees, and polls read from there on."""
    vendor.change_rules(window_unit="s", time_format="s")
    run_contact(database, "1", "2")
    process(vendor, "1", processed_at=vendor.now() // 1000 * 1000)
    person = Person(*([] if agrees else ["epoch_unit"]))
    learned = run_contact(database, "1", "2", person=person)["learned"]
    assert learned["window_unit"] == "s"
    assert learned["times_shown"] == "seconds since 1970"
    assert learned["bounds"] == "processed_after inclusive, processed_before inclusive"
    assert column(database, "epoch_unit") == ("s" if agrees else None)


def test_times_between_two_units_tell_nothing_of_bounds(
    database: Database, vendor: SandboxHandle
) -> None:
    """Times between two seconds are inside of both bounds of a second."""
    vendor.change_rules(window_unit="s")
    run_contact(database, "1", "2")
    process(vendor, "1", processed_at=vendor.now() // 1000 * 1000 + 7)
    learned = run_contact(database, "1", "2")["learned"]
    assert learned["window_unit"] == "s"
    assert learned["bounds"] == "not known: times are finer than the unit, s"


@pytest.mark.parametrize("agrees", [True, False])
def test_a_vendor_that_wants_numbers(
    database: Database, vendor: SandboxHandle, agrees: bool
) -> None:
    """The setting changes if the person agrees; then creates and disables send numbers."""
    vendor.change_rules(numeric_ids=True)
    person = Person(*([] if agrees else ["numeric_lead_ids"]))
    learned = run_contact(database, "1", "2", person=person)["learned"]
    assert "valid integer" in learned["create_refusal"]
    assert column(database, "numeric_lead_ids") is agrees
    if not agrees:
        assert created(vendor) == {}
        assert sql.fetch_statuses(database)["1"] == "rejected"
        return
    assert learned["lead_id_sent"] == "accepted as a number"
    assert created(vendor) == {"1": 1, "2": 1}
    assert sql.fetch_opt_outs(database) == {"2": "disabled"}
    assert push_leads()["created"] == 3


def test_a_vendor_that_refuses_numbers_too(database: Database, vendor: SandboxHandle) -> None:
    """The setting is what it was."""
    for nth in (2, 3):
        vendor.add_fault(
            route="create", kind="status", status=400, nth=nth, detail="lead_id: an integer, please"
        )
    person = Person()
    run_contact(database, "1", "2", person=person)
    assert any("numeric_lead_ids" in asked for asked in person.asked)
    assert column(database, "numeric_lead_ids") is False
    assert created(vendor) == {}


def test_an_id_that_is_no_number_is_not_switched(database: Database, vendor: SandboxHandle) -> None:
    """`007` would become 7, another id."""
    factories.add_leads(database, "007")
    vendor.change_rules(numeric_ids=True)
    person = Person()
    run_contact(database, "007", person=person)
    assert not any("numeric_lead_ids" in asked for asked in person.asked)
    assert column(database, "numeric_lead_ids") is False


@pytest.mark.parametrize(
    ("repeat", "answer", "times"),
    [
        ("error", "HTTP 400 {detail: ", 1),
        ("update", "HTTP 201 {created: number", 2),
        ("second", "HTTP 201 {created: number", 2),
    ],
)
def test_a_repeated_id_is_sent_if_a_person_asked_for_it(
    database: Database, vendor: SandboxHandle, repeat: str, answer: str, times: int
) -> None:
    """Once; whatever the vendor makes of it, the lead stays created, and no push sends it again."""
    vendor.change_rules(repeat=repeat)
    learned = run_contact(database, "1", "2", repeats_id=True)["learned"]
    assert learned["repeated_id"].startswith(answer)
    rows = 2 if repeat == "second" else 1
    assert learned["repeated_id"].endswith(f"rows of this id shown afterwards: {rows}")
    assert vendor.store.offers(factories.CAMPAIGN)["1"] == 2
    assert created(vendor)["1"] == times
    assert sql.fetch_statuses(database)["1"] == "created"
    run_contact(database, "1", "2", repeats_id=True)
    push_leads()
    assert vendor.store.offers(factories.CAMPAIGN) == {"1": 2, **dict.fromkeys("2389", 1)}


@pytest.mark.parametrize(
    "step", ["Read the", "empty list", "Create 1", "Look 1", "Create 3 without", "Create 2, 3"]
)
def test_a_step_that_is_declined_is_not_taken(
    database: Database, vendor: SandboxHandle, step: str
) -> None:
    """The others are asked for; nobody is created who was not agreed to."""
    run_contact(database, "1", "2", "3", person=Person(step, "Opt "))
    sent = sorted(created(vendor))
    assert sent == {"Create 1": [], "Create 2, 3": ["1"]}.get(step, ["1", "2", "3"])
    assert sql.fetch_opt_outs(database) == {}


def test_whoever_declines_all_sends_nothing(database: Database, vendor: SandboxHandle) -> None:
    """Not even a read."""
    run_contact(database, "1", "2", person=Person(""))
    assert list_calls(vendor) == []


@pytest.mark.parametrize("stopped_at", range(9))
def test_a_stop_at_any_question_leaves_what_later_runs_handle(
    database: Database, vendor: SandboxHandle, stopped_at: int
) -> None:
    """Ctrl-C, then the same command again, then a push: each lead is created once."""
    asked: list[str] = []

    def stop(announcement: str) -> None:
        asked.append(announcement)
        if len(asked) == stopped_at + 1:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_contact(database, "1", "2", person=Person(on_ask=stop))
    assert len(asked) == min(stopped_at + 1, 8)
    assert set(sql.fetch_statuses(database).values()) <= {"new", "created"}
    run_contact(database, "1", "2")
    push_leads()
    assert created(vendor) == dict.fromkeys("12389", 1)
    assert sql.fetch_opt_outs(database) == {"2": "disabled"}


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        (
            "INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', '1')",
            "cancelled",
        ),
        ("UPDATE leadloop.campaigns SET push_enabled = false", "new"),
        ("INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES ('C1', 'a test')", "new"),
        ("UPDATE leadloop.leads SET phone_number = '12' WHERE lead_id = '1'", "rejected"),
    ],
)
def test_the_rules_of_a_push_hold(
    database: Database, vendor: SandboxHandle, statement: str, status: str
) -> None:
    """Also for what happens while the person thinks about it."""

    def change(announcement: str) -> None:
        if announcement.startswith("Create 1"):
            sql.execute(database, statement)

    with pytest.raises(RunError):
        run_contact(database, "1", "2", person=Person(on_ask=change))
    assert created(vendor) == {}
    assert sql.fetch_statuses(database)["1"] == status


def test_a_vendor_that_takes_a_lead_without_a_number(
    database: Database, vendor: SandboxHandle
) -> None:
    """It cannot call the person; the lead is created, and not sent again with a number."""
    vendor.change_rules(required=("lead_id",))
    learned = run_contact(database, "1", "2", person=Person("Opt "))["learned"]
    assert learned["lead_refusal"].endswith("; the lead is created")
    push_leads()
    assert created(vendor) == dict.fromkeys("1289", 1) | {"3": 1}


def test_a_refused_lead_that_cannot_be_looked_up_is_not_simply_requeued(
    database: Database, vendor: SandboxHandle
) -> None:
    """The line names what shows whether the vendor has it, before what sends it again."""

    def refuse_reads(announcement: str) -> None:
        if announcement.startswith("Create 2 without"):
            vendor.add_fault(route="responses", kind="status", status=403, times=50)

    with pytest.raises(RunError, match=r"if `leadloop audit` does not list it, `leadloop requeue"):
        run_contact(database, "1", "2", person=Person(on_ask=refuse_reads))
    assert sql.fetch_statuses(database)["2"] == "rejected"


def test_a_lead_that_was_refused_and_shows_is_not_sent_again(
    database: Database, vendor: SandboxHandle
) -> None:
    """The vendor created it and answered 400: it is created, so no requeue sends it again."""
    vendor.change_rules(required=("lead_id",))
    vendor.add_fault(route="create", kind="status", status=400, when="after", nth=3)
    person = Person()
    summary = run_contact(database, "1", "2", person=person)
    assert summary["leads"]["2"] == "created"
    assert "the vendor shows 2 although it refused it: the lead is created" in person.reported
    run_contact(database, "1", "2")
    assert created(vendor) == {"1": 1, "2": 1}
    assert sql.fetch_opt_outs(database) == {"2": "disabled"}


def test_an_opt_out_of_a_stopped_contact_is_the_only_one(
    database: Database, vendor: SandboxHandle
) -> None:
    """The stop came before the answer was kept: nobody else is opted out."""
    run_contact(database, "1", "2", "3", person=Person("Opt "))
    factories.add_opt_outs(database, "3")
    learned = run_contact(database, "1", "2", "3")["learned"]
    assert learned["disable"].endswith("errors: []}; the opt-out is disabled")
    assert sql.fetch_opt_outs(database) == {"3": "disabled"}


def test_an_opt_out_that_was_disabled_is_the_only_one_too(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its answer is lost, and no other person is opted out for it."""
    run_contact(database, "1", "2", "3", person=Person("Opt "))
    factories.add_opt_outs(database, "3")
    disable_leads()
    learned = run_contact(database, "1", "2", "3")["learned"]
    assert learned["disable"] == "no answer in this contact; the opt-out is disabled"
    assert sql.fetch_opt_outs(database) == {"3": "disabled"}


@pytest.mark.parametrize("step", ["Create 1", "Create 2 without"])
def test_a_row_that_is_deleted_meanwhile_ends_it_in_one_line(
    database: Database, vendor: SandboxHandle, step: str
) -> None:
    """Nobody is sent who has no row."""

    def delete(announcement: str) -> None:
        if announcement.startswith(step):
            sql.execute(database, f"DELETE FROM leadloop.leads WHERE lead_id = '{step[7]}'")

    with pytest.raises(RunError, match=f"the row of lead {step[7]} was deleted meanwhile"):
        run_contact(database, "1", "2", person=Person(on_ask=delete))
    assert step[7] not in created(vendor)


def test_what_was_corrected_meanwhile_is_not_kept_either(
    database: Database, vendor: SandboxHandle
) -> None:
    """The vendor repeats what it was sent, which is not what stood there at the start."""
    vendor.add_fault(route="create", kind="status", status=400, nth=2, detail="No: Ann, Zebedee")

    def correct(announcement: str) -> None:
        if announcement.startswith("Create 1"):
            sql.execute(database, "UPDATE leadloop.leads SET contact_name = 'Zebedee Quux'")

    learned = run_contact(database, "1", person=Person(on_ask=correct))["learned"]
    assert learned["create_refusal"] == 'HTTP 400 {detail: "No: …, …"}'


def test_a_number_that_opted_out_is_not_sent(database: Database, vendor: SandboxHandle) -> None:
    """Under whichever lead it did."""
    number = factories.build_lead("1")["phone_number"]
    old = factories.build_lead("old", phone_number=number, status="created")
    factories.add_leads(database, old)
    factories.add_opt_outs(database, "old")
    with pytest.raises(RunError):
        run_contact(database, "1")
    assert created(vendor) == {}


@pytest.mark.parametrize(
    ("statement", "opt_out"), [(_OPT_OUT, "disabled"), (_PAUSE, None), (_HOLD, None)]
)
def test_the_rules_of_a_push_hold_for_a_repeated_id(
    database: Database, vendor: SandboxHandle, statement: str, opt_out: str | None
) -> None:
    """The lead stays created, so that its opt-out reaches the vendor."""
    # Otherwise the lead's number, which has opted out with it, keeps the lead back too.
    sql.execute(database, "UPDATE leadloop.campaigns SET sends_opted_out_numbers = true")

    def change(announcement: str) -> None:
        if "AGAIN" in announcement:
            sql.execute(database, statement)

    with pytest.raises(RunError, match="was not sent again"):
        run_contact(database, "1", "2", person=Person(on_ask=change), repeats_id=True)
    assert vendor.store.offers(factories.CAMPAIGN)["1"] == 1
    assert sql.fetch_statuses(database)["1"] == "created"
    disable_leads()
    assert sql.fetch_opt_outs(database).get("1") == opt_out


def test_a_create_that_fails_is_looked_up(database: Database, vendor: SandboxHandle) -> None:
    """The vendor took the lead and answered 500: the lookup finds it."""
    vendor.add_fault(route="create", kind="status", status=500, when="after", nth=2)
    learned = run_contact(database, "1", "2")["learned"]
    assert learned["create_unclear"].startswith("HTTP 500")
    assert learned["unprocessed_lead"].startswith("shown, ")
    assert created(vendor) == {"1": 1, "2": 1}
    assert sql.fetch_statuses(database)["1"] == "created"


def test_a_lead_that_may_exist_is_not_sent_again(database: Database, vendor: SandboxHandle) -> None:
    """Nor are others, as long as nobody knows; pushes find out with another lead."""
    vendor.add_fault(route="create", kind="status", status=500, when="before", nth=2)
    person = Person()
    summary = run_contact(database, "1", "2", person=person)
    assert summary["leads"] == {"1": "in_doubt", "2": "new"}
    assert any("stays in doubt" in line for line in person.reported)
    assert created(vendor) == {}
    push_leads()
    push_leads()
    assert created(vendor) == dict.fromkeys("12389", 1)


def test_a_wrong_login_ends_it_before_anybody_is_sent(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next command in the line."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "wrong")
    with pytest.raises(RunError, match=r"cannot be read .* no lead was sent: `leadloop doctor`"):
        run_contact(database, "1")
    assert created(vendor) == {}


def test_a_campaign_whose_pushes_would_interfere_is_named(
    database: Database, vendor: SandboxHandle
) -> None:
    """A schedule would send all others; a campaign that is not enabled can be contacted too."""
    person = Person("")
    run_contact(database, "1", person=person)
    assert any("4 other leads are new" in line for line in person.reported)
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled = false")
    person = Person()
    run_contact(database, "1", "2", person=person)
    assert not any("other leads" in line for line in person.reported)
    assert created(vendor) == {"1": 1, "2": 1}


def _reject(database: Database) -> None:
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected' WHERE lead_id = '1'")


def _opt_out(database: Database) -> None:
    factories.add_opt_outs(database, "1")


@pytest.mark.parametrize(
    ("change", "lead_ids", "reason"),
    [
        (lambda _: None, ["1", "2", "3", "8"], "1 to 3 leads"),
        (lambda _: None, ["1", "stranger"], "has no lead stranger"),
        (_reject, ["1"], "lead 1 is rejected.*requeue --rejected --campaign C1 --lead-id 1"),
        (_opt_out, ["1"], "lead 1 has opted out"),
    ],
)
def test_leads_that_cannot_be_contacted_are_refused(
    database: Database,
    vendor: SandboxHandle,
    change: Callable[[Database], None],
    lead_ids: list[str],
    reason: str,
) -> None:
    """Before any request."""
    change(database)
    with pytest.raises(UsageError, match=reason):
        run_contact(database, *lead_ids)
    assert list_calls(vendor) == []


def test_an_unknown_campaign_is_refused(database: Database, vendor: SandboxHandle) -> None:
    """Before any request."""
    with pytest.raises(UsageError, match="unknown campaign C9"):
        run_contact(database, "1", campaign="C9")
    assert list_calls(vendor) == []
