import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from leadloop.sandbox import SandboxHandle

PATHS = {
    "create": ("POST", "/api/v1/leads/create/C1/"),
    "responses": ("GET", "/api/v1/leads/responses/C1/"),
    "disable": ("POST", "/api/v1/leads/disable/C1/"),
    "token": ("POST", "/oauth/token/"),
    "revoke": ("POST", "/oauth/revoke_token/"),
}


class SandboxClient:
    """A client of the sandbox over HTTP, written from the vendor's document."""

    def __init__(self, handle: SandboxHandle, session: requests.Session) -> None:
        """Use the sandbox of this handle."""
        self.handle = handle
        self.session = session

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        """Send a request, with the default token unless headers override it."""
        headers = {"Authorization": "Bearer sandbox-token", **given.pop("headers", {})}
        url = self.handle.url + path
        return self.session.request(method, url, headers=headers, timeout=10, **given)

    def call_admin(self, method: str, path: str, **given: Any) -> Any:
        """Call an admin endpoint without a token, and return its JSON."""
        headers = {"Authorization": None}
        response = self.call(method, f"/_sandbox/{path}", headers=headers, **given)
        assert response.status_code == 200, response.text
        return response.json()

    def create(self, leads: Any, campaign: str = "C1", **given: Any) -> requests.Response:
        """Create leads."""
        return self.call("POST", f"/api/v1/leads/create/{campaign}/", json=leads, **given)

    def read(self, campaign: str = "C1", **params: Any) -> requests.Response:
        """Read one page."""
        return self.call("GET", f"/api/v1/leads/responses/{campaign}/", params=params)

    def disable(self, *lead_ids: Any) -> requests.Response:
        """Disable leads."""
        body = [{"lead_id": lead_id} for lead_id in lead_ids]
        return self.call("POST", "/api/v1/leads/disable/C1/", json=body)

    def ids(self, **params: Any) -> list[Any]:
        """Read the lead ids of one page, in its order."""
        return [row["lead_id"] for row in self.read(**params).json()["results"]]

    def process(self, *lead_ids: str, **more: Any) -> None:
        """Process each lead with a stated outcome."""
        common = {"campaign_id": "C1", "outcome_id": 7, "outcome_name": "Yes", **more}
        self.handle.put_outcomes([{**common, "lead_id": lead_id} for lead_id in lead_ids])


def lead(lead_id: Any, **more: Any) -> dict[str, Any]:
    """Make a lead that the document allows."""
    wanted = {"phone_number": "+12125550123", "contact_name": "Ann Example", "state_code": "NY"}
    return {"lead_id": lead_id, **wanted, **more}


@contextmanager
def open_socket(api: SandboxClient) -> Iterator[socket.socket]:
    """Open a bare socket, to see what the sandbox puts on the wire."""
    place = urlsplit(api.handle.url)
    with closing(socket.create_connection((place.hostname or "", place.port or 0), 5)) as sock:
        yield sock


StartSandbox = Callable[..., SandboxClient]
"""Starts a sandbox with the given rules, and returns a client of it."""
