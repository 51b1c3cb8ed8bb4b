import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from leadloop.sandbox import Fault
from tests.sandbox.http_client import Visitor, lead

Visit = Callable[..., Visitor]


@contextmanager
def connected(api: Visitor) -> Iterator[socket.socket]:
    """A bare socket, to see what a fault really puts on the wire."""
    place = urlsplit(api.handle.url)
    with closing(socket.create_connection((place.hostname or "", place.port or 0), 5)) as sock:
        yield sock


def ask(sock: socket.socket) -> None:
    """Send one request for a page."""
    sock.sendall(
        b"GET /api/v1/leads/responses/C1/ HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer sandbox-token\r\n\r\n"
    )


def drained(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    pieces = []
    while piece := sock.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 502, 503])
def test_any_status_before_or_after_the_effect(
    visit: Visit, when: str, created: dict[str, int], status: int
) -> None:
    """The answer is the fault's; whether the lead exists is told by the books."""
    api = visit()
    api.handle.fault(kind="status", status=status, when=when, headers={"Retry-After": "7"})
    answer = api.create([lead("a")])
    assert answer.status_code == status
    assert answer.headers["Retry-After"] == "7"
    assert "Date" in answer.headers
    assert api.handle.books.creations("C1") == created
    assert api.handle.requests[-1].fault == f"status {status} {when}"


def test_a_fault_says_what_it_is_told_to(visit: Visit) -> None:
    """So a test can have the vendor repeat what nobody should."""
    api = visit()
    api.handle.fault(kind="status", status=400, detail="Ann is not valid")
    assert api.create([lead("a")]).json() == {"detail": "Ann is not valid"}


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [("json", "application/json", "{"), ("html", "text/html", "<!DOCTYPE"), ("empty", "", "")],
)
def test_the_body_of_a_status_can_be_set(visit: Visit, body: str, kind: str, text: str) -> None:
    """JSON, a proxy's HTML, or nothing."""
    api = visit()
    api.handle.fault(kind="status", status=503, body=body)
    answer = api.read()
    assert answer.headers.get("Content-Type", "").startswith(kind)
    assert answer.text.startswith(text)
    assert bool(answer.text) == bool(text)


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
def test_reset_is_a_tcp_reset(visit: Visit, when: str, created: dict[str, int]) -> None:
    """The client sees ECONNRESET, not an end of file."""
    api = visit()
    api.handle.fault(kind="reset", when=when)
    with connected(api) as sock:
        ask(sock)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(requests.ConnectionError):
        api.create([lead("a")])
    assert api.handle.books.creations("C1") == created
    assert api.handle.requests[-1].status == 0


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
def test_hang_answers_nothing(visit: Visit, when: str, created: dict[str, int]) -> None:
    """A client with a shorter timeout times out; the connection is closed in the end."""
    api = visit()
    api.handle.fault(kind="hang", seconds=0.3, when=when)
    with connected(api) as sock:
        ask(sock)
        start = time.monotonic()
        assert drained(sock) == b""
        assert time.monotonic() - start > 0.25
    url = f"{api.handle.url}/api/v1/leads/create/C1/"
    headers = {"Authorization": "Bearer sandbox-token"}
    with pytest.raises(requests.ReadTimeout):
        api.session.post(url, json=[lead("a")], headers=headers, timeout=0.1)
    deadline = time.monotonic() + 30
    while api.handle.books.creations("C1") != created and time.monotonic() < deadline:
        time.sleep(0.01)
    assert api.handle.books.creations("C1") == created


def test_cut_sends_half_of_the_true_answer(visit: Visit) -> None:
    """The length is promised, half of it comes, then the end of the stream."""
    api = visit()
    api.handle.fault(kind="cut", route="responses", times=1)
    with connected(api) as sock:
        ask(sock)
        head, _, body = drained(sock).partition(b"\r\n\r\n")
    whole = api.read().content
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert body == whole[: len(whole) // 2]


def test_cut_comes_after_the_effect(visit: Visit) -> None:
    """The leads exist, though their caller cannot read so."""
    api = visit()
    api.handle.fault(kind="cut")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api.create([lead("a")])
    assert api.handle.books.creations("C1") == {"a": 1}


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
def test_foreign_is_a_200_that_is_not_the_vendor_s(
    visit: Visit, when: str, created: dict[str, int]
) -> None:
    """HTML with status 200, as a captive portal or a proxy gives."""
    api = visit()
    api.handle.fault(kind="foreign", when=when)
    answer = api.create([lead("a")])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert api.handle.books.creations("C1") == created


def test_redirect_leads_elsewhere(visit: Visit) -> None:
    """Another server sees whether the client follows, and whether it brings the token."""
    api, other = visit(), visit()
    path = "/api/v1/leads/create/C1/"
    api.handle.fault(kind="redirect", url=other.handle.url + path)
    answer = api.call("POST", path, json=[lead("a")], allow_redirects=False)
    assert answer.status_code == 307
    assert other.handle.requests == []
    api.create([lead("a")])
    assert [entry.path for entry in other.handle.requests] == [path]


def test_slow_drips_the_true_answer(visit: Visit) -> None:
    """It is whole in the end, and no single wait is long."""
    api = visit()
    api.create([lead(n) for n in range(50)])
    whole = api.read().json()
    api.handle.fault(kind="slow", seconds=0.4, times=1)
    start = time.monotonic()
    assert api.read().json() == whole
    assert time.monotonic() - start > 0.3


def test_shift_skips_or_doubles_rows(visit: Visit) -> None:
    """As if rows before the page had left the range, or had entered it."""
    api = visit()
    api.create([lead(n) for n in range(6)])
    api.handle.fault(kind="shift", rows=1, nth=2)
    assert api.ids(page=1, page_size=3) + api.ids(page=2, page_size=3) == ["0", "1", "2", "4", "5"]
    api.handle.clear_faults()
    api.handle.fault(kind="shift", rows=-1, nth=2)
    pages = api.ids(page=1, page_size=3) + api.ids(page=2, page_size=3)
    assert pages == ["0", "1", "2", "2", "3", "4"]


def test_late_processes_a_lead_in_the_past(visit: Visit) -> None:
    """A row enters a range that was read before; its attempt lies in the past too."""
    api = visit()
    api.create([lead(n) for n in range(3)])
    now = api.handle.now()
    window = {"processed_after": now - 61_000, "processed_before": now - 30_000}
    assert api.ids(**window) == []
    api.handle.fault(kind="late", seconds=60, times=1)
    assert len(api.ids(**window)) == 1
    assert len(api.ids(**window)) == 1


def test_repeat_processes_a_lead_again(visit: Visit) -> None:
    """The row leaves its range, comes back later, with one attempt more."""
    api = visit()
    api.create([lead("a")])
    api.process("a", processed_at=1000, attempts=[{"reference_id": "r1"}])
    api.handle.fault(kind="repeat", times=1)
    assert api.ids(processed_before=2000) == []
    (row,) = api.read(processed_after=2000).json()["results"]
    attempts = row[row["call_attempt_keys"][0]]
    assert attempts[0] == {"reference_id": "r1"}
    assert len(attempts) == 2
    assert row[row["last_call_attempt_keys"][0]] == attempts[1]


@pytest.mark.parametrize(
    ("schedule", "hit"),
    [
        ({"nth": 2}, [1]),
        ({"every": 2}, [1, 3, 5]),
        ({"times": 2}, [0, 1]),
        ({"every": 2, "times": 2}, [1, 3]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_when_a_fault_fires(visit: Visit, schedule: dict[str, Any], hit: list[int]) -> None:
    """On the nth, on every nth, by chance, and so many times at most."""
    api = visit()
    api.handle.fault(kind="status", route="responses", **schedule)
    statuses = [api.read().status_code for _ in range(6)]
    assert [n for n, status in enumerate(statuses) if status == 500] == hit
    assert api.handle.faults[0]["fired"] == len(hit)


def test_chance_is_seeded(visit: Visit) -> None:
    """The same seed fires on the same requests."""

    def hits(seed: int) -> list[int]:
        api = visit(seed=seed)
        api.handle.fault(kind="status", probability=0.5)
        return [api.read().status_code for _ in range(30)]

    assert hits(1) == hits(1) != hits(2)


def test_a_fault_keeps_to_its_route(visit: Visit) -> None:
    """Other routes answer as ever."""
    api = visit()
    api.handle.fault(kind="status", route="disable")
    assert api.create([lead("a")]).status_code == 201
    assert api.disable("a").status_code == 500


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "boom"},
        {"kind": "cut", "when": "before"},
        {"kind": "late", "when": "after"},
        {"kind": "redirect"},
        {"kind": "reset", "route": "nowhere"},
        {"kind": "reset", "sometimes": True},
        {"kind": "reset", "nth": "2"},
        {"kind": "reset", "every": 0},
        {},
    ],
)
def test_a_wrong_fault_is_refused(given: dict[str, Any]) -> None:
    """One line that says what a fault must be."""
    with pytest.raises(ValueError, match="a fault"):
        Fault.from_json(given)


def test_a_hanging_request_does_not_hold_up_others(visit: Visit) -> None:
    """Faults on one connection leave the others as quick as ever."""
    api = visit()
    api.handle.fault(kind="hang", seconds=30, route="disable")
    with connected(api) as sock:
        body = b'{"lead_id": 1}'
        sock.sendall(
            b"POST /api/v1/leads/disable/C1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
            + body
        )
        start = time.monotonic()
        assert api.read().status_code == 200
        assert time.monotonic() - start < 15


def test_a_caller_that_dies_in_the_middle_of_its_request_creates_nothing(
    visit: Visit, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a body and the end of the connection: nothing happens, nothing is complained of."""
    api = visit()
    with connected(api) as sock:
        head = b"POST /api/v1/leads/create/C1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 999"
        sock.sendall(head + b'\r\n\r\n[{"lead_id": 1')
        while not api.handle.requests:
            time.sleep(0.01)
    assert api.ids() == []
    assert [entry.status for entry in api.handle.requests] == [0, 200]
    assert caplog.records == []


def test_many_callers_at_once(visit: Visit) -> None:
    """Threads that create at the same time lose nothing."""
    api = visit()

    def push(first: int) -> None:
        with requests.Session() as session:
            for n in range(first, first + 50, 10):
                Visitor(api.handle, session).create([lead(i) for i in range(n, n + 10)])

    threads = [threading.Thread(target=push, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert api.handle.books.creations("C1") == {str(n): 1 for n in range(400)}
