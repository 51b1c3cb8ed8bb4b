"""What a poll checks once of the vendor: clocks, and whether bounds mean what they should."""

from datetime import datetime, timedelta

from leadloop.core import clock_skew
from leadloop.core.errors import RunError
from leadloop.core.timestamps import OTHER_UNIT
from leadloop.core.windows import Window, subtract_to_epoch
from tasks.context import ApiContext, CampaignRun
from tasks.page_reader import PageReader
from tasks.window_pages import ParsedPage, WindowRead

#: After this time without any outcome, the poll checks the unit of the bounds.
UNIT_DOUBTED_AFTER = timedelta(days=1)


class ApiQuirks:
    """The checks of one poll; each is made once, when its first response is there.

    Args:
        run: the campaign's run.
        pages: reads pages.
        now: the database's clock when the poll began.
        no_outcome_since: the time of the first sent lead, if that is long ago and the campaign
            has no outcome at all; else None.
    """

    def __init__(
        self,
        run: CampaignRun[ApiContext],
        pages: PageReader,
        *,
        now: datetime,
        no_outcome_since: datetime | None,
    ) -> None:
        self._run = run
        self._pages = pages
        self._now = now
        self._no_outcome_since = no_outcome_since
        self._parent_counts: dict[Window, int] = {}
        self._bounds_respected = False
        self._clocks_compared = False
        #: A watermark in the future, as an error's text.
        self.watermark_ahead: str | None = None

    def compare_clocks(self, first: ParsedPage, watermark: datetime | None) -> None:
        """Warn about clock skew, and note a watermark in the future."""
        if self._clocks_compared:
            return
        self._clocks_compared = True
        skew = clock_skew.describe_skew(first.vendor_now, first.database_now)
        if skew:
            self._run.warn("%s", skew)
        if watermark is not None:
            self.watermark_ahead = clock_skew.describe_future_watermark(
                watermark, first.vendor_now, first.database_now
            )

    def remember_parent(self, parts: list[Window], count: int) -> None:
        """Remember how many results the window has that these are parts of."""
        self._parent_counts |= dict.fromkeys(parts, count)

    def is_count_doubtful(self, window: Window, first: ParsedPage) -> bool:
        """Return whether a part counts as much as the whole: the API may ignore the bounds."""
        whole = self._parent_counts.get(window, first.count + 1)
        return first.count >= whole and not self._bounds_respected

    def require_bounds(self, window: Window, first: ParsedPage) -> None:
        """Check that a doubtful count depends on the bounds of a window.

        Raises:
            RunError: it does not.
        """
        if not self.is_count_doubtful(window, first):
            return
        self._bounds_respected = self._pages.respects_bounds()
        if not self._bounds_respected:
            raise RunError(
                f"the vendor's count ({first.count}) ignores processed_after and processed_before:"
                " it is the same for a part of a time range as for the whole, and more than 0 for"
                " 2001; so no outcome can be verified, and the watermark did not move: report this"
                " to the vendor; the next poll tries again"
            )

    def require_unit(self, reading: WindowRead) -> None:
        """Check in a poll without any outcome so far that the unit of the bounds is right.

        The check comes before the first window is stored: with the wrong unit, the watermark must
        not move.

        Raises:
            RunError: with the other unit, the API counts outcomes.
        """
        since, self._no_outcome_since = self._no_outcome_since, None
        if since is None or reading.seen:
            return
        campaign = self._run.campaign
        whole = Window(after=subtract_to_epoch(since, campaign.lookback), before=self._now)
        count = self._pages.count_in_other_unit(whole)
        if count:
            unit = OTHER_UNIT[campaign.epoch_unit]
            raise RunError(
                f"no outcome has come since {whole.after:%Y-%m-%d}, but the vendor counts {count}"
                f" if the bounds are sent in {unit} instead of {campaign.epoch_unit}: the unit of"
                " times is wrong; nothing is lost, and the watermark did not move: set the"
                f" campaign's epoch_unit, or LEADLOOP_EPOCH_UNIT, to {unit}, and the next poll"
                " reads all outcomes"
            )
