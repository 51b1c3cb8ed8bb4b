from typing import Any

import requests

from leadloop.sandbox import Handle


class Visitor:
    """A caller of the sandbox over HTTP, written from the vendor's document."""

    def __init__(self, handle: Handle, session: requests.Session) -> None:
        """Call the sandbox of this handle."""
        self.handle = handle
        self.session = session

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        """Any request, with the default token unless headers say otherwise."""
        headers = {"Authorization": "Bearer sandbox-token", **given.pop("headers", {})}
        url = self.handle.url + path
        return self.session.request(method, url, headers=headers, timeout=10, **given)

    def create(self, leads: Any, campaign: str = "C1", **given: Any) -> requests.Response:
        """Create leads."""
        return self.call("POST", f"/api/v1/leads/create/{campaign}/", json=leads, **given)

    def read(self, campaign: str = "C1", **params: Any) -> requests.Response:
        """One page."""
        return self.call("GET", f"/api/v1/leads/responses/{campaign}/", params=params)

    def disable(self, *lead_ids: Any) -> requests.Response:
        """Disable leads."""
        body = [{"lead_id": lead_id} for lead_id in lead_ids]
        return self.call("POST", "/api/v1/leads/disable/C1/", json=body)

    def ids(self, **params: Any) -> list[Any]:
        """The lead ids of one page, in its order."""
        return [row["lead_id"] for row in self.read(**params).json()["results"]]

    def process(self, *lead_ids: str, **more: Any) -> None:
        """Put an outcome in by hand for each id."""
        common = {"campaign_id": "C1", "outcome_id": 7, "outcome_name": "Yes", **more}
        self.handle.put([{**common, "lead_id": lead_id} for lead_id in lead_ids])


def lead(lead_id: Any, **more: Any) -> dict[str, Any]:
    """A lead that the document allows."""
    wanted = {"phone_number": "+12125550123", "contact_name": "Ann Example", "state_code": "NY"}
    return {"lead_id": lead_id, **wanted, **more}
