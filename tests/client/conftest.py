from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from leadloop.client.api import LeadsApi
from leadloop.client.auth import StaticToken, TokenProvider
from leadloop.client.transport import Timeouts, Transport
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import SandboxHandle

TOKEN = "sandbox-token"

Reach = Callable[..., "Client"]


class Client(LeadsApi):
    """The API as a run uses it, with its transport and the calls that acquired a permit."""

    def __init__(
        self, transport: Transport, tokens: TokenProvider | None, permits: list[ApiCall]
    ) -> None:
        self.pauses: list[float | None] = []
        super().__init__(
            transport, tokens or StaticToken(TOKEN), permits.append, self.pauses.append
        )
        self.transport = transport
        self.permits = permits


@pytest.fixture
def reach() -> Iterator[Reach]:
    """Create clients of the API at a URL: `reach(url, read_s=0.3)`."""
    with ExitStack() as stack:

        def start(
            url: str,
            *,
            read_s: float = 10.0,
            login: Callable[[Transport, Callable[[ApiCall], None]], TokenProvider] | None = None,
        ) -> Client:
            transport = Transport(url, Timeouts(connect_s=5.0, read_s=read_s), connections=4)
            stack.callback(transport.close)
            permits: list[ApiCall] = []
            return Client(transport, login(transport, permits.append) if login else None, permits)

        yield start


@pytest.fixture
def client(reach: Reach, vendor: SandboxHandle) -> Client:
    """A client of the test's sandbox."""
    return reach(vendor.url)
