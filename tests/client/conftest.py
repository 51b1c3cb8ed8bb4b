from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from leadloop.client.api import LeadsApi
from leadloop.client.auth import StaticToken, TokenProvider
from leadloop.client.retries import RequestRetries
from leadloop.client.transport import Timeouts, Transport
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import SandboxHandle

TOKEN = "sandbox-token"

Reach = Callable[..., "Client"]
#: Makes a login out of the transport, the wait for permits and the retries.
Login = Callable[[Transport, Callable[[ApiCall], None], RequestRetries], TokenProvider]


class Client(LeadsApi):
    """The API as a run uses it, with its transport and the calls that acquired a permit.

    `slept` are the pauses before retries, which take no time; `pauses` those that the vendor asked
    for.
    """

    def __init__(self, transport: Transport, login: Login | None) -> None:
        self.permits: list[ApiCall] = []
        self.pauses: list[float | None] = []
        self.slept: list[float] = []
        retries = RequestRetries(sleep=self.slept.append, on_pause=self.pauses.append)
        permit = self.permits.append
        tokens = login(transport, permit, retries) if login else StaticToken(TOKEN)
        super().__init__(transport, tokens, permit, retries)
        self.transport = transport


@pytest.fixture
def reach() -> Iterator[Reach]:
    """Create clients of the API at a URL: `reach(url, read_s=0.3)`."""
    with ExitStack() as stack:

        def start(
            url: str,
            *,
            read_s: float = 10.0,
            login: Login | None = None,
        ) -> Client:
            transport = Transport(url, Timeouts(connect_s=5.0, read_s=read_s), connections=4)
            stack.callback(transport.close)
            return Client(transport, login)

        yield start


@pytest.fixture
def client(reach: Reach, vendor: SandboxHandle) -> Client:
    """A client of the test's sandbox."""
    return reach(vendor.url)
