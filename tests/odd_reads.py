"""A proxy before the sandbox that alters what reads show of a campaign, as no fault can."""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

#: Gets the query of a read and all rows of the campaign; returns the rows to show, or a status.
Alter = Callable[[dict[str, str], list[dict[str, Any]]], list[Any] | int]


@dataclass
class OddReads:
    """The proxy: `alter` may be replaced, and `queries` has the reads so far.

    `counts_per_page`: the count of a page is that of its own rows. `failing_campaign`: all reads of
    this campaign answer 500.
    """

    url: str
    alter: Alter = lambda _, rows: list(rows)
    queries: list[dict[str, str]] = field(default_factory=list)
    counts_per_page: bool = False
    failing_campaign: str = ""

    def count_pages(self) -> int:
        """Count the pages of the listing that were read."""
        return sum("lead_id" not in query for query in self.queries)

    def count_lookups(self) -> int:
        """Count the lookups."""
        return sum("lead_id" in query for query in self.queries)


def let_row_leave(proxy: OddReads, *, after: int, enters: bool) -> None:
    """Have the first row leave the listing once its first page was read so often.

    `enters`: another row enters at its end at that moment.
    """

    def alter(query: dict[str, str], rows: list[dict[str, Any]]) -> list[Any]:
        pages = [each["page"] for each in proxy.queries[:-1] if "lead_id" not in each]
        if "lead_id" in query or pages.count("1") < after:
            return rows
        return rows[1:] + ([{**rows[0], "lead_id": "other"}] if enters else [])

    proxy.alter = alter


@contextmanager
def run_odd_reads(api_url: str) -> Iterator[OddReads]:
    """Serve on a free loopback port, before the API at `api_url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    proxy = OddReads(url=f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = _create_handler(proxy, api_url)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _create_handler(proxy: OddReads, api_url: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if proxy.failing_campaign and f"/{proxy.failing_campaign}/" in url.path:
                self._answer(500, b"")
                return
            if "processed_after" in query:
                self._answer(*self._forward(self.path))
                return
            proxy.queries.append(query)
            _, everything = self._forward(f"{url.path}?page_size=10000")
            shown = proxy.alter(query, json.loads(everything)["results"])
            if isinstance(shown, int):
                self._answer(shown, b'{"detail": "no"}')
            else:
                self._answer(200, json.dumps(_build_page(proxy, query, shown)).encode())

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(*self._forward(self.path, content))

        def _forward(self, path: str, content: bytes | None = None) -> tuple[int, bytes]:
            headers = {"Content-Type": "application/json"}
            headers["Authorization"] = self.headers["Authorization"]
            request = urllib.request.Request(api_url + path, content, headers)
            try:
                with urllib.request.urlopen(request) as response:
                    return response.status, response.read()
            except HTTPError as error:
                with error:
                    return error.code, error.read()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    return Handler


def _build_page(proxy: OddReads, query: dict[str, str], rows: list[Any]) -> dict[str, Any]:
    if "lead_id" in query:
        rows = [row for row in rows if row and str(row.get("lead_id")) == query["lead_id"]]
    page, size = int(query.get("page", 1)), int(query.get("page_size", 100))
    shown = rows[(page - 1) * size : page * size]
    has_next = page * size < len(rows)
    count = len(shown if proxy.counts_per_page else rows)
    return {"count": count, "next": "next" if has_next else None, "results": shown}
