"""A fake API for polls, with responses that the sandbox never gives."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, kw_only=True)
class Query:
    """The parameters of a request; bounds in the unit that the client sent."""

    after: int
    before: int
    page: int
    size: int


Answer = Callable[[Query], dict[str, Any] | bytes | int | None]


@dataclass
class QuirkyApi:
    """A server that responds to each query with `answer`: an object, a body, or an error status.

    It closes the connection instead where that is None.

    `rows` are the results for `build_page`; `ahead_s` is how far the server's clock is ahead;
    `retry_after_s` is the pause that each error status asks for, if any.
    """

    answer: Answer
    rows: list[dict[str, Any]] = field(default_factory=list)
    ahead_s: float = 0.0
    retry_after_s: int | None = None
    queries: list[Query] = field(default_factory=list)
    url: str = ""


def build_page(rows: list[dict[str, Any]], query: Query) -> dict[str, Any]:
    """Return the page that a correct API would; each row has `processed_at` in epoch ms."""
    found = [row for row in rows if query.after <= row["processed_at"] <= query.before]
    start = (query.page - 1) * query.size
    return {"count": len(found), "results": found[start : start + query.size]}


@contextmanager
def run_quirky_api(answer: Answer | None = None) -> Iterator[QuirkyApi]:
    """Serve on a free loopback port; without an `answer`, as a correct API."""
    vendor = QuirkyApi(answer=answer or (lambda query: build_page(vendor.rows, query)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _create_handler(vendor))
    server.daemon_threads = True
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield vendor
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def _create_handler(vendor: QuirkyApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in one packet: a second one would wait for the client's delayed ACK.
        wbufsize = -1

        def do_GET(self) -> None:
            query = _parse_query(self.path)
            vendor.queries.append(query)
            given = vendor.answer(query)
            if given is None:
                self.close_connection = True
                return
            status = given if isinstance(given, int) else 200
            body = given if isinstance(given, bytes) else json.dumps(given).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status != 200 and vendor.retry_after_s is not None:
                self.send_header("Retry-After", str(vendor.retry_after_s))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            now = time.time() if timestamp is None else timestamp
            return formatdate(now + vendor.ahead_s, usegmt=True)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _parse_query(path: str) -> Query:
    given = {name: int(value[0]) for name, value in parse_qs(urlsplit(path).query).items()}
    return Query(
        # A listing of the whole campaign has no bounds, and here no rows.
        after=given.get("processed_after", 0),
        before=given.get("processed_before", 0),
        page=given["page"],
        size=given["page_size"],
    )
