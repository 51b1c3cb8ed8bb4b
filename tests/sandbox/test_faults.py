import socket
import time
from typing import Any

import pytest
import requests

from leadloop.sandbox import Fault
from tests.sandbox.http_client import StartSandbox, lead, open_socket


def send_read(sock: socket.socket) -> None:
    """Send one request for a page."""
    sock.sendall(
        b"GET /api/v1/leads/responses/C1/ HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer sandbox-token\r\n\r\n"
    )


def read_to_end(sock: socket.socket) -> bytes:
    """Read everything up to the end of the stream."""
    pieces = []
    while piece := sock.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 502, 503])
def test_any_status_before_or_after_the_effect(
    start_sandbox: StartSandbox, when: str, created: dict[str, int], status: int
) -> None:
    """The response is the fault's; the records show whether the lead exists."""
    api = start_sandbox()
    api.handle.add_fault(kind="status", status=status, when=when, headers={"Retry-After": "7"})
    answer = api.create([lead("a")])
    assert answer.status_code == status
    assert answer.headers["Retry-After"] == "7"
    assert "Date" in answer.headers
    assert api.handle.store.creations("C1") == created
    assert api.handle.requests[-1].fault == f"status {status} {when}"


def test_the_detail_of_a_status_can_be_set(start_sandbox: StartSandbox) -> None:
    """So a test can have the vendor repeat personal data."""
    api = start_sandbox()
    api.handle.add_fault(kind="status", status=400, detail="Ann is not valid")
    assert api.create([lead("a")]).json() == {"detail": "Ann is not valid"}


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [("json", "application/json", "{"), ("html", "text/html", "<!DOCTYPE"), ("empty", "", "")],
)
def test_the_body_of_a_status_can_be_set(
    start_sandbox: StartSandbox, body: str, kind: str, text: str
) -> None:
    """JSON, a proxy's HTML, or nothing."""
    api = start_sandbox()
    api.handle.add_fault(kind="status", status=503, body=body)
    answer = api.read()
    assert answer.headers.get("Content-Type", "").startswith(kind)
    assert answer.text.startswith(text)
    assert bool(answer.text) == bool(text)


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
def test_reset_is_a_tcp_reset(
    start_sandbox: StartSandbox, when: str, created: dict[str, int]
) -> None:
    """The client sees ECONNRESET, not an end of file."""
    api = start_sandbox()
    api.handle.add_fault(kind="reset", when=when)
    with open_socket(api) as sock:
        send_read(sock)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(requests.ConnectionError):
        api.create([lead("a")])
    assert api.handle.store.creations("C1") == created
    assert api.handle.requests[-1].status == 0


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
def test_hang_answers_nothing(
    start_sandbox: StartSandbox, when: str, created: dict[str, int]
) -> None:
    """A client with a shorter timeout times out; the connection is closed in the end."""
    api = start_sandbox()
    api.handle.add_fault(kind="hang", seconds=0.3, when=when)
    with open_socket(api) as sock:
        send_read(sock)
        start = time.monotonic()
        assert read_to_end(sock) == b""
        assert time.monotonic() - start > 0.25
    url = f"{api.handle.url}/api/v1/leads/create/C1/"
    headers = {"Authorization": "Bearer sandbox-token"}
    with pytest.raises(requests.ReadTimeout):
        api.session.post(url, json=[lead("a")], headers=headers, timeout=0.1)
    deadline = time.monotonic() + 30
    while api.handle.store.creations("C1") != created and time.monotonic() < deadline:
        time.sleep(0.01)
    assert api.handle.store.creations("C1") == created


def test_cut_sends_half_of_the_true_answer(start_sandbox: StartSandbox) -> None:
    """The length is promised, half of it comes, then the end of the stream."""
    api = start_sandbox()
    api.handle.add_fault(kind="cut", route="responses", times=1)
    with open_socket(api) as sock:
        send_read(sock)
        head, _, body = read_to_end(sock).partition(b"\r\n\r\n")
    whole = api.read().content
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert body == whole[: len(whole) // 2]


def test_cut_comes_after_the_effect(start_sandbox: StartSandbox) -> None:
    """The leads exist, though their caller cannot read so."""
    api = start_sandbox()
    api.handle.add_fault(kind="cut")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api.create([lead("a")])
    assert api.handle.store.creations("C1") == {"a": 1}


@pytest.mark.parametrize(("when", "created"), [("before", {}), ("after", {"a": 1})])
def test_foreign_is_a_200_that_is_not_the_vendor_s(
    start_sandbox: StartSandbox, when: str, created: dict[str, int]
) -> None:
    """HTML with status 200, as a captive portal or a proxy gives."""
    api = start_sandbox()
    api.handle.add_fault(kind="foreign", when=when)
    answer = api.create([lead("a")])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert api.handle.store.creations("C1") == created


def test_redirect_leads_elsewhere(start_sandbox: StartSandbox) -> None:
    """Another server sees whether the client follows, and whether it brings the token."""
    api, other = start_sandbox(), start_sandbox()
    path = "/api/v1/leads/create/C1/"
    api.handle.add_fault(kind="redirect", url=other.handle.url + path)
    answer = api.call("POST", path, json=[lead("a")], allow_redirects=False)
    assert answer.status_code == 307
    assert other.handle.requests == []
    api.create([lead("a")])
    assert [entry.path for entry in other.handle.requests] == [path]


def test_slow_drips_the_true_answer(start_sandbox: StartSandbox) -> None:
    """It is whole in the end, and no single wait is long."""
    api = start_sandbox()
    api.create([lead(n) for n in range(50)])
    whole = api.read().json()
    api.handle.add_fault(kind="slow", seconds=0.4, times=1)
    start = time.monotonic()
    assert api.read().json() == whole
    assert time.monotonic() - start > 0.3


def test_shift_skips_or_doubles_rows(start_sandbox: StartSandbox) -> None:
    """As if rows before the page had left the range, or had entered it."""
    api = start_sandbox()
    api.create([lead(n) for n in range(6)])
    api.handle.add_fault(kind="shift", rows=1, nth=2)
    assert api.ids(page=1, page_size=3) + api.ids(page=2, page_size=3) == ["0", "1", "2", "4", "5"]
    api.handle.clear_faults()
    api.handle.add_fault(kind="shift", rows=-1, nth=2)
    pages = api.ids(page=1, page_size=3) + api.ids(page=2, page_size=3)
    assert pages == ["0", "1", "2", "2", "3", "4"]


def test_late_processes_a_lead_in_the_past(start_sandbox: StartSandbox) -> None:
    """A row enters a range that was read before; its attempt lies in the past too."""
    api = start_sandbox()
    api.create([lead(n) for n in range(3)])
    now = api.handle.now()
    window = {"processed_after": now - 61_000, "processed_before": now - 30_000}
    assert api.ids(**window) == []
    api.handle.add_fault(kind="late", seconds=60, times=1)
    assert len(api.ids(**window)) == 1
    assert len(api.ids(**window)) == 1


def test_repeat_processes_a_lead_again(start_sandbox: StartSandbox) -> None:
    """The row leaves its range, comes back later, with one attempt more."""
    api = start_sandbox()
    api.create([lead("a")])
    api.process("a", processed_at=1000, attempts=[{"reference_id": "r1"}])
    api.handle.add_fault(kind="repeat", times=1)
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
def test_when_a_fault_fires(
    start_sandbox: StartSandbox, schedule: dict[str, Any], hit: list[int]
) -> None:
    """On the nth, on every nth, by chance, and at most `times` times."""
    api = start_sandbox()
    api.handle.add_fault(kind="status", route="responses", **schedule)
    statuses = [api.read().status_code for _ in range(6)]
    assert [n for n, status in enumerate(statuses) if status == 500] == hit
    assert api.handle.faults[0]["fired"] == len(hit)


def test_chance_is_seeded(start_sandbox: StartSandbox) -> None:
    """The same seed fires on the same requests."""

    def hits(seed: int) -> list[int]:
        api = start_sandbox(seed=seed)
        api.handle.add_fault(kind="status", probability=0.5)
        return [api.read().status_code for _ in range(30)]

    assert hits(1) == hits(1) != hits(2)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 403, "body": "html"},
        {"kind": "reset"},
        {"kind": "reset", "when": "after"},
        {"kind": "hang", "seconds": 0.01},
        {"kind": "cut"},
        {"kind": "foreign"},
    ],
    ids=lambda fault: " ".join(map(str, fault.values())),
)
def test_a_share_of_the_requests_fails(start_sandbox: StartSandbox, fault: dict[str, Any]) -> None:
    """Of every kind, and as many as the sandbox counts have failed for the client."""
    api = start_sandbox()
    api.handle.add_fault(**fault, probability=0.4)
    failed = 0
    for _ in range(30):
        try:
            failed += api.read().json().get("results") is None
        except requests.RequestException:
            failed += 1
    (counted,) = api.handle.faults
    assert (counted["seen"], counted["fired"]) == (30, failed)
    assert 0 < failed < 30
    assert sum(entry.fault is not None for entry in api.handle.requests) == failed


def test_the_first_of_several_faults_hits(start_sandbox: StartSandbox) -> None:
    """The others have seen the request, and do not count it as theirs."""
    api = start_sandbox()
    api.handle.add_fault(kind="status", status=500, every=2)
    api.handle.add_fault(kind="status", status=502)
    assert [api.read().status_code for _ in range(4)] == [502, 500, 502, 500]
    counts = [(fault["seen"], fault["fired"]) for fault in api.handle.faults]
    assert counts == [(4, 2), (4, 2)]


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 403, "body": "html"}], ids=["500", "403"]
)
def test_a_poisoned_lead_fails_its_page(start_sandbox: StartSandbox, fault: dict[str, Any]) -> None:
    """Each page that would show the lead fails, also one that does not name it."""
    api = start_sandbox()
    api.create([lead(f"{n}") for n in range(6)])
    for n in range(6):
        api.process(f"{n}", processed_at=1000 + n)
    api.handle.add_fault(kind="status", lead_id="3", **fault)
    status = fault["status"]
    pages = [api.read(page=page, page_size=2).status_code for page in (1, 2, 3, 4)]
    assert pages == [200, status, 200, 404]
    assert api.read(processed_after=1003, processed_before=1003).status_code == status
    assert api.read(processed_after=1004).status_code == 200
    assert api.read(lead_id="3").status_code == status
    assert api.read("C2").status_code == 200
    assert api.disable("1", "2").status_code == 201
    assert api.disable("2", "3").status_code == status
    assert api.handle.requests[-1].fault == f"status {status} before 3"


def test_a_fault_keeps_to_its_route(start_sandbox: StartSandbox) -> None:
    """Other routes answer as ever."""
    api = start_sandbox()
    api.handle.add_fault(kind="status", route="disable")
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
        {"kind": "reset", "probability": 1.5},
        {"kind": "reset", "probability": "often"},
        {},
    ],
)
def test_a_wrong_fault_is_refused(given: dict[str, Any]) -> None:
    """One line that states what a fault must be."""
    with pytest.raises(ValueError, match="a fault"):
        Fault.from_json(given)


def test_a_hanging_request_does_not_hold_up_others(start_sandbox: StartSandbox) -> None:
    """Faults on one connection leave the others as quick as ever."""
    api = start_sandbox()
    api.handle.add_fault(kind="hang", seconds=30, route="disable")
    with open_socket(api) as sock:
        body = b'{"lead_id": 1}'
        sock.sendall(
            b"POST /api/v1/leads/disable/C1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
            + body
        )
        start = time.monotonic()
        assert api.read().status_code == 200
        assert time.monotonic() - start < 15
