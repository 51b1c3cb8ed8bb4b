"""Live runs in threads of this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from leadloop.settings import Settings
from tasks.live import LiveHost, LiveState, run_live

LOG = logging.getLogger("leadloop.tests")


@dataclass
class LiveRun:
    """A live run in a thread, and how a test ends it."""

    name: str
    state: LiveState = field(default_factory=LiveState)
    is_cancelled: Event = field(default_factory=Event)
    is_stopped: Event = field(default_factory=Event)
    has_ended: Event = field(default_factory=Event)

    def run(self) -> None:
        """Run until the test ends it."""
        host = LiveHost(
            log=LOG,
            name=self.name,
            load_settings=Settings.load,
            is_cancelled=self.is_cancelled.is_set,
            on_look=self._stop,
        )
        try:
            run_live(host, self.state)
        except KeyboardInterrupt:
            assert self.is_stopped.is_set()
        finally:
            self.has_ended.set()

    def _stop(self, _: LiveState) -> None:
        if self.is_stopped.is_set():
            raise KeyboardInterrupt

    @property
    def works(self) -> bool:
        """Whether it holds shares."""
        return self.state.shares > 0


@contextmanager
def start_run(name: str) -> Iterator[LiveRun]:
    """Run a live run in a thread for the block."""
    run = LiveRun(name)
    thread = Thread(target=run.run, name=name)
    thread.start()
    try:
        yield run
    finally:
        run.is_stopped.set()
        thread.join(60)
        assert not thread.is_alive()
