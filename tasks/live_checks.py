"""What a live run asks its host every minute: for other settings, and whether it shall end."""

from collections.abc import Callable
from contextvars import copy_context
from threading import Thread

from db.database import require_url
from leadloop.core.errors import LeadloopError
from leadloop.settings import DATABASE_URL, Settings
from tasks.context import Logger


class HostCheck:
    """Asks the host in a separate thread, so that a host that hangs does not stop the loop.

    Prefect's server may take minutes to fail. A loop that waits for it would count as hung after
    ten seconds (`db.live_places`).

    Attributes:
        settings: the complete settings that the last check found; None: none has. A file that is
            being written may lack some: a run that used those would end.
        is_cancelled: whether the host wants the run to end.

    Args:
        log: where a check that failed is logged.
        load_settings: returns the settings as they are now.
        is_cancelled: returns whether the run shall end.
    """

    def __init__(
        self, log: Logger, load_settings: Callable[[], Settings], is_cancelled: Callable[[], bool]
    ) -> None:
        self.settings: Settings | None = None
        self.is_cancelled = False
        self._log = log
        self._load_settings = load_settings
        self._ask_is_cancelled = is_cancelled
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin a check, unless the last one is still under way."""
        if self._thread is None or not self._thread.is_alive():
            # Prefect's log and client are found by the context of the flow.
            self._thread = Thread(
                target=copy_context().run, args=(self._ask,), name="live-check", daemon=True
            )
            self._thread.start()

    def _ask(self) -> None:
        try:
            self.is_cancelled = self._ask_is_cancelled()
            settings = self._load_settings()
            _require_complete(settings)
            self.settings = settings
        except LeadloopError as error:
            self._log.warning("the settings as they were stay in use: %s", error)
        except Exception as error:
            # Whatever it is: the server may be away, and the settings as they were are good.
            self._log.warning("the settings cannot be read again: %s", type(error).__name__)


def _require_complete(settings: Settings) -> None:
    """Check that settings name a database and have a login.

    Raises:
        LeadloopError: they do not.
    """
    settings.require_login()
    require_url(settings.require_database_url(), DATABASE_URL)
