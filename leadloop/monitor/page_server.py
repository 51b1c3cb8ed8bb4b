"""The HTTP server of the page: Streamlit under uvicorn, with fixed options, behind a guard."""

import base64
import contextlib
import re
import signal
import socket
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import FrameType

import uvicorn
from streamlit import config as streamlit_config
from streamlit.file_util import get_static_dir
from streamlit.starlette import App
from streamlit.web import bootstrap

from leadloop.monitor.colours import DARK, LIGHT
from leadloop.monitor.data import PageConfig, set_config
from leadloop.monitor.request_guard import (
    MAX_CONNECTIONS,
    MAX_MESSAGE_BYTES,
    RequestGuard,
    ServedAddresses,
)

_SCRIPT = Path(__file__).with_name("streamlit_app.py")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_OPTIONS = {
    "browser.gatherUsageStats": False,
    # Its download would not escape what a spreadsheet takes for a formula, as ours does.
    "client.disableDataExport": True,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "logger.hideWelcomeMessage": True,
    "logger.level": "info",
    "secrets.files": [],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.showEmailPrompt": False,
    "theme.baseRadius": "0.5rem",
    "theme.headingFontSizes": ["1.75rem", "1.25rem", "1.05rem"],
    "theme.metricValueFontSize": "1.5rem",
    "theme.paddingTop": "2.5rem",
    **{f"theme.light.{name}": value for name, value in LIGHT.items()},
    **{f"theme.dark.{name}": value for name, value in DARK.items()},
}

_ADVICE = (
    "Behind a proxy, or under another name, set LEADLOOP_PAGE_URL of `leadloop monitor` to the"
    " page's address in the browser"
)


def build_content_security_policy(page: str) -> str:
    """Build the policy of a Streamlit page: scripts, styles and fonts from its server alone.

    Streamlit needs inline styles, and its charts compile their expressions.

    Args:
        page: Streamlit's HTML, whose inline scripts may run.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = "".join(f" 'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'self'; script-src 'self' 'unsafe-eval'{allowed};"
        " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:;"
        " worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )


class _PageServer(uvicorn.Server):
    """A server that calls `on_ready` once it listens, and returns normally on a stop signal."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Unlike uvicorn's own, this does not raise the signal again.
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def run_page_server(
    config: PageConfig,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    *,
    public_url: str | None,
) -> None:
    """Serve the page until SIGINT or SIGTERM, then return.

    Args:
        config: the database to read, and what else the page depends on.
        host: the address to listen on.
        port: the port to listen on; 0: any free one.
        on_ready: called with the page's URL once the server answers.
        public_url: the page's address in the browser, if a proxy serves it; None: no proxy.

    Raises:
        OSError: the server cannot listen on the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        set_config(config)
        # Read no `.streamlit/` of the working directory or the home directory: config.toml could
        # set any option, and Streamlit exports secrets.toml to the environment, where libpq looks
        # for a host.
        streamlit_config.get_config_files = lambda file_name: []
        bound_host, bound_port = listener.getsockname()[:2]
        bootstrap.load_config_options({**_OPTIONS, "server.port": bound_port})
        page = Path(get_static_dir(), "index.html").read_text(encoding="utf-8")
        server_config = uvicorn.Config(
            RequestGuard(
                App(_SCRIPT),
                ServedAddresses(public_url=public_url, advice=_ADVICE),
                {"content-security-policy": build_content_security_policy(page)},
            ),
            log_config=None,
            log_level="error",
            access_log=False,
            # uvicorn refuses the connection that reaches its limit.
            limit_concurrency=MAX_CONNECTIONS + 1,
            ws_max_size=MAX_MESSAGE_BYTES,
            # A browser keeps its connection open for as long as it shows the page.
            timeout_graceful_shutdown=1,
        )
        url_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        server = _PageServer(server_config, lambda: on_ready(f"http://{url_host}:{bound_port}"))
        server.run(sockets=[listener])
