"""Resolution of many leads in doubt by the campaign's listing: fewer requests than lookups."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from db import audit_staging, in_doubt, watermarks
from db.database import Connection
from db.in_doubt import AbsentLeads
from leadloop.client.errors import ApiError
from leadloop.core.errors import RunError
from tasks.context import ApiContext, CampaignRun
from tasks.lead_listing import LeadListing

#: A listing of several pages is read twice, to prove that no row is missing.
_MAX_READS = 2


class InDoubtListing:
    """The listing of one campaign, compared with its leads in doubt."""

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self._run = run
        self._campaign_id = run.campaign.campaign_id

    def count_requests(self) -> int:
        """Return the requests that the listing takes, by the count on its first page.

        If the first page counts itself alone, nobody knows how many pages follow: sys.maxsize.

        Raises:
            ApiError: the page cannot be read.
        """
        page = self._run.context.api.list_all(
            self._campaign_id, page=1, page_size=self._run.campaign.page_size
        )
        if page.has_next and page.count <= len(page.results):
            return sys.maxsize
        pages = -(-page.count // max(1, len(page.results)))
        return pages if pages <= 1 else pages * _MAX_READS

    def resolve(self) -> tuple[Sequence[str], AbsentLeads | None]:
        """Read the listing, and record what it proves about every lead in doubt.

        Returns:
            The ids of leads that it shows, which are `created`; and what became of those that it
            proves absent, or None: only a complete listing that shows unprocessed leads proves it.
            A page that cannot be read ends the listing, and those before it prove presence.
        """
        with self._run.context.database.autocommit() as self._connection:
            try:
                audit_staging.create_listing_table(self._connection)
                began = watermarks.get_database_time(self._connection)
                is_complete = self._read_listing()
                with self._use_staging() as connection:
                    found = in_doubt.confirm_listed(connection, self._campaign_id)
                    if not (is_complete and self._may_prove_absence(connection)):
                        return found, None
                    settle_s = self._run.campaign.settle_s
                    return found, in_doubt.confirm_unlisted(
                        connection, self._campaign_id, began=began, settle_s=settle_s
                    )
            finally:
                # Not back to the pool: the staging table ends with the connection.
                self._connection.invalidate()

    def _read_listing(self) -> bool:
        """Read the listing; return whether it is complete."""
        listing = LeadListing(
            self._run, self._use_staging, lambda: None, keep_results=False, label="push"
        )
        try:
            listing.prove_whole(_MAX_READS)
        except (ApiError, RunError) as error:
            self._run.warn("the listing ends early: %s", error)
            return False
        return listing.complete

    def _may_prove_absence(self, connection: Connection) -> bool:
        return audit_staging.has_unprocessed_leads(
            connection, self._campaign_id
        ) and not audit_staging.has_nameless_rows(connection)

    @contextmanager
    def _use_staging(self) -> Iterator[Connection]:
        with self._run.context.database.translate_errors():
            yield self._connection
