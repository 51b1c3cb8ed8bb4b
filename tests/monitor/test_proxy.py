"""The page behind the proxy of the documentation: a real nginx with TLS, and a real browser."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from db.database import Database
from tests.monitor import seed_data
from tests.monitor.conftest import seed_database, serve_monitor
from tests.raw_http_server import create_certificate, response, run_raw_server

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "monitor-page.md"
_TIMEOUT_MS = 120_000
# Around the server of the guide: all files in one directory, and no daemon.
_CONFIGURATION = """
daemon off;
pid {directory}/pid;
error_log {directory}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {server}
}}
"""
# A second place at the same proxy, which removes the path and passes the host on.
_STRIPPED = """
    location /stripped/ {
        proxy_pass http://127.0.0.1:8501/;
        proxy_set_header Host $host;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
}"""


@contextmanager
def run_proxy(nginx: str, directory: Path, port: int, page_port: int) -> Iterator[None]:
    """Run the nginx of the guide for the block, with another name, port and certificate."""
    (server,) = re.findall(r"```nginx\n(.*?)\n```", _GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    server = server.removesuffix("}").rstrip() + _STRIPPED
    certificate = create_certificate(directory)
    for written, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("leads.example.com", "leads.test"),
        ("/etc/ssl/leads.pem", str(certificate)),
        ("127.0.0.1:8501", f"127.0.0.1:{page_port}"),
    ):
        assert written in server
        server = server.replace(written, here)
    configuration = directory / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, server=server))
    with subprocess.Popen([nginx, "-p", directory, "-c", configuration]) as process:
        try:
            wait_until_listening(process, port, directory / "log")
            yield
        finally:
            process.terminate()


def wait_until_listening(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until a process listens on a port of loopback."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(log.read_text())


def find_free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def addresses(
    page_database: Database, nginx: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Yield the page's URL at the proxy, and its own."""
    seed_database(page_database, seed_data.seed_healthy)
    public_url = f"https://leads.test:{find_free_port()}/page"
    with ExitStack() as stack:
        own_url = stack.enter_context(
            serve_monitor(
                page_database.sibling_url("page", "postgresql"),
                tmp_path_factory.mktemp("page"),
                LEADLOOP_PAGE_URL=public_url,
            )
        )
        ports = [urlsplit(url).port or 0 for url in (public_url, own_url)]
        stack.enter_context(run_proxy(nginx, tmp_path_factory.mktemp("nginx"), *ports))
        yield public_url, own_url


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Yield a new viewer, who accepts the proxy's certificate."""
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(_TIMEOUT_MS)
    yield context
    context.close()


def assert_works(page: Page, url: str) -> None:
    """Assert that the page shows live data and charts, that a CSV comes, and that no CSP is hit."""
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(url)
    expect(page.get_by_text("All is well").first).to_be_visible(timeout=_TIMEOUT_MS)
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(6, timeout=_TIMEOUT_MS)
    with page.expect_download() as download:
        page.locator(".st-key-csv-campaigns button:visible").first.click()
    assert "EAST-1" in download.value.path().read_text()
    assert not [text for text in messages if "Content Security Policy" in text]


@pytest.mark.parametrize("path", ["/page", "/stripped/", "own"])
def test_the_page_behind_a_proxy(
    context: BrowserContext, addresses: tuple[str, str], path: str
) -> None:
    """Under another name, with https outside, below a path; and without the proxy as before."""
    public_url, own_url = addresses
    url = own_url if path == "own" else public_url.removesuffix("/page") + path
    assert_works(context.new_page(), url)


def test_a_stranger_s_name_for_this_machine(
    context: BrowserContext, addresses: tuple[str, str]
) -> None:
    """DNS rebinding: a page of that name gets nothing."""
    page = context.new_page()
    shown = page.goto(addresses[1].replace("127.0.0.1", "evil.test"))
    assert shown is not None
    assert shown.status == 403
    assert "LEADLOOP_PAGE_URL" in page.content()


def test_a_stranger_s_page(context: BrowserContext, addresses: tuple[str, str]) -> None:
    """It opens no WebSocket, reads no response, and shows the page in no frame."""
    page = context.new_page()
    url = addresses[1]
    # Of another server of this machine: Streamlit itself would let its WebSocket in.
    with run_raw_server(response("200 OK", "<p>evil")) as evil:
        page.goto(evil.url)
    opened = """url => new Promise(resolve => {
        const socket = new WebSocket(url, ["streamlit"])
        socket.onopen = () => resolve(true)
        socket.onclose = () => resolve(false)
    })"""
    assert page.evaluate(opened, f"{url.replace('http', 'ws')}/_stcore/stream") is False
    read = "url => fetch(url).then(() => true, () => false)"
    assert page.evaluate(read, f"{url}/_stcore/health") is False
    with page.expect_response(f"{url}/"):
        page.set_content(f'<iframe src="{url}/"></iframe>')
    page.wait_for_timeout(1000)
    assert [frame.url for frame in page.frames[1:]] == ["chrome-error://chromewebdata/"]
