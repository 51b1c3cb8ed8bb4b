from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from leadloop.sandbox import Rules, running
from tests.sandbox.http_client import Visitor


@pytest.fixture
def visit() -> Iterator[Callable[..., Visitor]]:
    """Starts a sandbox with the given rules and returns a visitor of it."""
    with ExitStack() as stack:

        def start(**rules: Any) -> Visitor:
            handle = stack.enter_context(running(Rules(**rules)))
            return Visitor(handle, stack.enter_context(requests.Session()))

        yield start
