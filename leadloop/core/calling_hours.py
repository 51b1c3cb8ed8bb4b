"""The hours at which the vendor calls: a local range such as `08:00-21:00 Europe/Berlin`."""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

#: Outcomes of calls at the end of the hours come for so long.
LAST_OUTCOMES = timedelta(hours=1)

_FORM = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d) (\S+)", re.ASCII)
_ADVICE = "write such as `08:00-21:00 America/New_York`"


@dataclass(frozen=True, kw_only=True)
class CallingHours:
    """A daily range of local time; one that closes before it opens passes midnight.

    Attributes:
        opens: the first minute of the range.
        closes: the first minute that is not in it any more; differs from `opens`.
        zone: the time zone of both.
    """

    opens: time
    closes: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> "CallingHours":
        """Parse hours as a campaign's row states them.

        Raises:
            ValueError: the text has another form, or this machine does not know the zone.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} are no hours: {_ADVICE}")
        try:
            opens, closes = time.fromisoformat(match[1]), time.fromisoformat(match[2])
        except ValueError:
            raise ValueError(f"{text!r} has times beyond 23:59: {_ADVICE}") from None
        if opens == closes:
            raise ValueError(f"{text!r} opens and closes at the same time: {_ADVICE}")
        try:
            zone = ZoneInfo(match[3])
        # A folder of the time zone database is an OSError, a path outside of it a ValueError.
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{text!r} has an unknown time zone: {_ADVICE}") from None
        return cls(opens=opens, closes=closes, zone=zone)

    def includes(self, moment: datetime) -> bool:
        """Return whether the vendor calls at this moment."""
        local = moment.astimezone(self.zone).time()
        if self.opens < self.closes:
            return self.opens <= local < self.closes
        return local >= self.opens or local < self.closes

    def brings_outcomes(self, moment: datetime) -> bool:
        """Return whether the vendor calls at this moment, or did within LAST_OUTCOMES before."""
        return self.includes(moment) or any(
            timedelta(0) <= moment - end < LAST_OUTCOMES for end in self._find_ends(moment)
        )

    def _find_ends(self, moment: datetime) -> list[datetime]:
        """Return the ends of today and yesterday; where clocks go back, both of that time."""
        today = moment.astimezone(self.zone).date()
        return [
            datetime.combine(day, self.closes, self.zone)
            .replace(fold=fold)
            .astimezone(moment.tzinfo)
            for day in (today, today - timedelta(days=1))
            for fold in (0, 1)
        ]
