import pytest
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import (
    BasePaginator,
    JSONLinkPaginator,
    PageNumberPaginator,
)

from tests.sandbox.http_client import StartSandbox, lead


@pytest.mark.parametrize(
    "paginator",
    [
        PageNumberPaginator(base_page=1, total_path=None, stop_after_empty_page=True),
        JSONLinkPaginator(next_url_path="next"),
    ],
    ids=["by number", "by link"],
)
def test_a_client_that_we_did_not_write_pages_through_all_leads(
    start_sandbox: StartSandbox, paginator: BasePaginator
) -> None:
    """Dlt's REST client gets each lead once, by page number and by (correct) links."""
    api = start_sandbox(links="correct", page_beyond_last="empty")
    for first in range(0, 950, 190):
        api.create([lead(n) for n in range(first, first + 190)])
    client = RESTClient(
        base_url=api.handle.url,
        auth=BearerTokenAuth("sandbox-token"),
        paginator=paginator,
        data_selector="results",
    )
    pages = client.paginate("/api/v1/leads/responses/C1/", params={"page_size": 100})
    found = [row["lead_id"] for page in pages for row in page]
    assert len(found) == 950
    assert set(found) == {str(n) for n in range(950)}
