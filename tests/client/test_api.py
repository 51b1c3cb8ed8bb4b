import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from leadloop.client.api import LookupResult
from leadloop.client.errors import Fatal, InDoubt, Rejected, Retryable, TooLarge
from leadloop.core.leads import PreparedLead
from leadloop.core.timestamps import EPOCH
from leadloop.core.verdicts import ApiCall
from leadloop.core.windows import Window
from leadloop.sandbox import SandboxHandle
from tests import factories
from tests.client.conftest import Client, Reach
from tests.raw_http_server import response, run_raw_server

HOUR = Window(after=EPOCH + timedelta(days=18_000), before=EPOCH + timedelta(days=18_000, hours=1))
_DATE = "Date: Sat, 31 Jan 2026 14:00:00 GMT"


def sendable(lead_id: str, **more: Any) -> PreparedLead:
    """A lead as it is sent."""
    row = factories.build_lead(lead_id, **more)
    body = json.dumps(row).encode()
    return PreparedLead(
        lead_id=lead_id, e164=row["phone_number"], contact_name=row["contact_name"], body=body
    )


def create(client: Client, *lead_ids: str) -> None:
    """Create leads, all of which are taken."""
    receipt = client.create("C1", [sendable(lead_id) for lead_id in lead_ids])
    assert receipt.rejected == {}


def test_a_batch_is_created_in_one_request(client: Client, vendor: SandboxHandle) -> None:
    """Every lead arrives with all of its fields; the turn was the caller's to wait for."""
    client.create("C1", [sendable("a", plan="x\N{SNOWMAN}"), sendable("007")])
    assert vendor.store.creations("C1") == {"a": 1, "007": 1}
    assert [entry.kind for entry in vendor.requests] == ["create"]
    assert client.permits == []
    found = client.look_up("C1", "a").result
    assert found is not None
    assert found["plan"] == "x\N{SNOWMAN}"
    assert found["contact_name"] == "Ann a"


def test_leads_that_were_not_taken_are_named(client: Client, vendor: SandboxHandle) -> None:
    """Where the vendor takes the good ones of a batch, the receipt says which it did not."""
    vendor.change_rules(bad_lead="lead")
    receipt = client.create("C1", [sendable("a"), sendable("b", contact_name="")])
    assert list(receipt.rejected) == ["b"]
    assert vendor.store.creations("C1") == {"a": 1}


def test_a_batch_that_is_refused_says_why(client: Client, vendor: SandboxHandle) -> None:
    """The body goes to the caller; the text of the error does not repeat it."""
    with pytest.raises(Rejected) as caught:
        client.create("C1", [sendable("a"), sendable("b", contact_name="")])
    assert caught.value.body
    assert str(caught.value) == "create: HTTP 400"
    assert vendor.store.creations("C1") == {}


def test_a_refusal_that_repeats_the_leads_accuses_those_it_means(reach: Reach) -> None:
    """Users' own fields accuse nobody in a 400 either, and a lead that it repeats is not taken."""
    leads = [sendable("a", status="failed"), sendable("b", error="none"), sendable("c")]
    told = [json.loads(lead.body) for lead in leads]
    told[2]["reason"] = "no"
    told[2]["errors"] = ["phone_number: not valid"]
    answer = response("400 Bad Request", json.dumps({"leads": told}))
    with run_raw_server(answer) as listener, pytest.raises(Rejected) as caught:
        reach(listener.url).create("C1", leads)
    assert caught.value.batch_result.rejected == {"c": "phone_number: not valid"}
    assert caught.value.batch_result.accepted == set()


def test_a_success_that_leaves_somebody_out_puts_them_in_doubt(reach: Reach) -> None:
    """Whom it names is settled: created, or refused with its words."""
    answer = {"created": ["a"], "errors": [{"lead_id": "b", "reason": "full"}], "failed": 2}
    with run_raw_server(response("201 Created", json.dumps(answer))) as listener:
        client = reach(listener.url)
        with pytest.raises(InDoubt) as caught:
            client.create("C1", [sendable(lead_id) for lead_id in "abc"])
        assert caught.value.batch_result.accepted == {"a"}
        assert caught.value.batch_result.rejected == {"b": "full"}


@pytest.mark.parametrize(
    "status",
    [*(400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 451), 301, 307, 500, 503],
)
def test_no_refusal_that_states_a_creation_is_believed(reach: Reach, status: int) -> None:
    """Whatever its status: whoever is not named may have been created, and is looked up."""
    answer = {"created": 7, "failed": [{"lead_id": "b", "error": "full"}]}
    headers = ("Retry-After: 0",) if status in (429, 503) else ()
    with run_raw_server(response(f"{status} No", json.dumps(answer), *headers)) as listener:
        client = reach(listener.url)
        with pytest.raises(InDoubt) as caught:
            client.create("C1", [sendable(lead_id) for lead_id in "abc"])
        assert caught.value.batch_result.rejected == {"b": "full"}


def test_a_disable_that_is_not_confirmed_is_refused(reach: Reach) -> None:
    """It does no harm to try it again, by itself at last."""
    with run_raw_server(response("200 OK", '{"disabled": 1}')) as listener:
        client = reach(listener.url)
        with pytest.raises(Rejected):
            client.disable("C1", ["a", "b"])
        client.disable("C1", ["a"])


def test_a_batch_that_is_too_large(client: Client, vendor: SandboxHandle) -> None:
    """413 is told from other refusals: fewer at a time will do."""
    vendor.change_rules(max_body_bytes=300)
    with pytest.raises(TooLarge):
        client.create("C1", [sendable(f"L{n}") for n in range(9)])


def test_leads_are_disabled(client: Client, vendor: SandboxHandle) -> None:
    """In one request, each with a turn of its own."""
    create(client, "a", "b", "c")
    assert client.disable("C1", ["a", "c"]).rejected == {}
    disabled = {key for key in "abc" if _row(vendor, key).disabled_at is not None}
    assert disabled == {"a", "c"}
    assert client.permits == [ApiCall.DISABLE]


def _row(vendor: SandboxHandle, lead_id: str) -> Any:
    campaign = vendor.store.find_campaign("C1")
    assert campaign is not None
    return campaign.first_by_id[lead_id]


def test_an_unknown_lead_in_a_disable_is_a_refusal_not_the_end(client: Client) -> None:
    """404 of a disable may mean one lead of the list: splitting finds out."""
    create(client, "a")
    with pytest.raises(Rejected):
        client.disable("C1", ["a", "stranger"])


def test_pages_are_read_by_number(client: Client, vendor: SandboxHandle) -> None:
    """Each with all filters, on our own address; `next`, which has lost them, is not followed."""
    create(client, *[f"L{n}" for n in range(25)])
    at = vendor.now() - 1000
    vendor.put_outcomes(
        {"campaign_id": "C1", "lead_id": f"L{n}", "outcome_id": 1, "processed_at": at}
        for n in range(25)
    )
    moment = EPOCH + timedelta(milliseconds=at)
    window = Window(after=moment, before=moment + timedelta(seconds=1))
    pages = [
        client.list_processed("C1", window, unit="ms", page=page, page_size=10)
        for page in (1, 2, 3)
    ]
    assert [page.count for page in pages] == [25, 25, 25]
    ids = [result["lead_id"] for page in pages for result in page.results]
    assert sorted(ids) == sorted(f"L{n}" for n in range(25))
    assert client.permits == [ApiCall.READ] * 3
    assert len(vendor.requests) == 4
    for entry in vendor.requests[1:]:
        assert {"processed_after", "processed_before", "page", "page_size"} == set(
            parse_qs(entry.query)
        )


@pytest.mark.parametrize("unit", ["ms", "s"])
def test_every_documented_parameter_is_sent(reach: Reach, unit: Any) -> None:
    """Window bounds in the campaign's unit, the page, its size, and the token as a header."""
    page = response("200 OK", '{"count": 0, "results": []}', _DATE)
    with run_raw_server(page) as listener:
        client = reach(listener.url)
        read = client.list_processed("C/ 1?", HOUR, unit=unit, page=3, page_size=50)
        client.look_up("C1", "0 &7")
    first, second = (request.decode() for request in listener.requests)
    path, query = first.split(" ")[1].split("?")
    scale = 1000 if unit == "ms" else 1
    assert path == "/api/v1/leads/responses/C%2F%201%3F/"
    assert parse_qs(query) == {
        "processed_after": [str(18_000 * 86_400 * scale - 1)],
        "processed_before": [str((18_000 * 86_400 + 3600) * scale + 1)],
        "page": ["3"],
        "page_size": ["50"],
    }
    assert parse_qs(second.split(" ")[1].partition("?")[2]) == {"lead_id": ["0 &7"]}
    assert "Authorization: Bearer sandbox-token\r\n" in first
    assert read.vendor_now == datetime(2026, 1, 31, 14, tzinfo=UTC)


def test_a_create_and_a_disable_on_the_wire(reach: Reach) -> None:
    """JSON lists, said to be JSON; ids as text and custom digits as they are."""
    lead = PreparedLead(
        lead_id="007",
        e164=None,
        contact_name=None,
        body=b'{"lead_id":"007","n":0.12345678901234567890}',
    )
    with run_raw_server(response("201 Created")) as listener:
        client = reach(listener.url)
        client.create("C1", [lead, lead])
        client.disable("C1", ["007", "\N{SNOWMAN}"])
    create_, disable = listener.requests
    assert create_.startswith(b"POST /api/v1/leads/create/C1/ HTTP/1.1\r\n")
    assert disable.startswith(b"POST /api/v1/leads/disable/C1/ HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in create_
    assert create_.endswith(b"[" + lead.body + b"," + lead.body + b"]")
    assert json.loads(disable.partition(b"\r\n\r\n")[2]) == [
        {"lead_id": "007"},
        {"lead_id": "\N{SNOWMAN}"},
    ]


def test_ids_are_sent_as_numbers_where_the_vendor_wants_them(reach: Reach) -> None:
    """An opt-out whose id is no number is sent all the same: the vendor may know it."""
    with run_raw_server(response("201 Created")) as listener:
        reach(listener.url).disable("C1", ["17", "007", "x"], numeric_ids=True)
    (disable,) = listener.requests
    assert json.loads(disable.partition(b"\r\n\r\n")[2]) == [
        {"lead_id": 17},
        {"lead_id": "007"},
        {"lead_id": "x"},
    ]


@pytest.mark.parametrize("answer", ["404", "empty"])
def test_a_page_beyond_the_last_is_an_empty_one(
    client: Client, vendor: SandboxHandle, answer: Any
) -> None:
    """Rows that left the range while it was read may take the last page with them."""
    vendor.change_rules(page_beyond_last=answer)
    create(client, "a")
    page = client.list_processed("C1", HOUR, unit="ms", page=7, page_size=10)
    assert list(page.results) == []


def test_an_unknown_campaign_is_no_empty_page(client: Client, vendor: SandboxHandle) -> None:
    """404 on the first page stops the run, with what to check."""
    vendor.change_rules(campaigns={"C1": "One"})
    with pytest.raises(Fatal, match="check the campaign id"):
        client.list_processed("C9", HOUR, unit="ms", page=1, page_size=10)
    with pytest.raises(Fatal, match="check the campaign id"):
        client.create("C9", [sendable("a")])


@pytest.mark.parametrize("written", ["text", "integer", "float"])
def test_a_lead_is_found_however_its_id_comes_back(
    client: Client, vendor: SandboxHandle, written: Any
) -> None:
    """As text or as a number; one with a leading zero is another lead."""
    vendor.change_rules(lead_id_answer=written)
    create(client, "7")
    assert client.look_up("C1", "7").result is not None
    assert client.look_up("C1", "07") == LookupResult(result=None, absent=True)
    assert client.look_up("C1", "8") == LookupResult(result=None, absent=True)


def test_a_row_that_moves_is_not_absent(client: Client, vendor: SandboxHandle) -> None:
    """An empty page that counts one result is no proof that there is none."""
    create(client, "a")
    vendor.add_fault(route="responses", kind="shift", rows=1)
    assert client.look_up("C1", "a") == LookupResult(result=None, absent=False)


def test_a_server_that_does_not_know_the_filter_tells_nothing(reach: Reach) -> None:
    """It answers with everybody: that a lead is not on this page does not make it absent."""
    everybody = '{"count": 2, "results": [{"lead_id": 1}, "odd"]}'
    with run_raw_server(response("200 OK", everybody)) as listener:
        assert reach(listener.url).look_up("C1", "2") == LookupResult(result=None, absent=False)


@pytest.mark.parametrize(
    "body",
    [
        *("", "[]", "{}", "null", "5", '{"count": 1}', '{"results": []}'),
        *('{"count": "1", "results": []}', '{"count": true, "results": []}'),
        *('{"count": -1, "results": []}', '{"count": 3000000000, "results": []}'),
        *('{"count": 1, "results": {}}', '{"count": 1, "res', "<!DOCTYPE html>", "\xff"),
    ],
)
def test_a_page_that_is_none_is_read_again(reach: Reach, body: str) -> None:
    """A success over something else proves nothing: it must not close a window."""
    with run_raw_server(response("200 OK", body.encode("latin-1"))) as listener:
        client = reach(listener.url)
        with pytest.raises(Retryable):
            client.list_processed("C1", HOUR, unit="ms", page=1, page_size=10)


@pytest.mark.parametrize(
    "date",
    [
        *("", "Date: nonsense", "Date: Sat, 31 Jan 2026 14:00:00 -0000", "Date: 0"),
        "Date: Fri, 31 Dec 9998 23:59:59 GMT",
        *("Date: Fri, 31 Dec 9999 23:59:59 -0100", "Date: Mon, 99999999999 Jan 2020 00:00:00 GMT"),
    ],
)
def test_a_clock_that_cannot_be_read_is_no_clock(reach: Reach, date: str) -> None:
    """The page is good all the same."""
    headers = [date] if date else []
    page = response("200 OK", '{"count": 0, "results": []}', *headers)
    with run_raw_server(page) as listener:
        read = reach(listener.url).list_processed("C1", HOUR, unit="ms", page=1, page_size=10)
    assert read.vendor_now is None


def test_an_odd_byte_spoils_no_page(reach: Reach) -> None:
    """A name in Latin-1, a line end in a text, a byte order mark: the rows beside it are read."""
    body = (
        b'\xef\xbb\xbf{"count": 2, "results": [{"lead_id": "a"}, {"lead_id": "b", "n": "\xe9\n"}]}'
    )
    with run_raw_server(response("200 OK", body)) as listener:
        read = reach(listener.url).list_processed("C1", HOUR, unit="ms", page=1, page_size=10)
    assert read.results == [{"lead_id": "a"}, {"lead_id": "b", "n": "\\udce9\n"}]
