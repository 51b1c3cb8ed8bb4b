from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from leadloop.sandbox import Rules, run_sandbox
from tests.sandbox.http_client import SandboxClient, StartSandbox


@pytest.fixture
def start_sandbox() -> Iterator[StartSandbox]:
    """Start sandboxes with the rules given, and return a client of each."""
    with ExitStack() as stack:

        def start(**rules: Any) -> SandboxClient:
            handle = stack.enter_context(run_sandbox(Rules(**rules)))
            return SandboxClient(handle, stack.enter_context(requests.Session()))

        yield start
