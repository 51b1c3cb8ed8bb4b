"""Progress goes to the listener of the command line; without one it costs nothing."""

from leadloop.core.progress import has_no_listener, progress_listener


class _Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []

    def add_total(self, label: str, total: int) -> None:
        """Record the expected work."""
        self.calls.append(("total", label, total))

    def advance(self, label: str, amount: int) -> None:
        """Record the work done."""
        self.calls.append(("done", label, amount))


def test_progress_reaches_the_listener_of_its_run_alone() -> None:
    """Progress before and after the run is dropped."""
    recorder = _Recorder()
    progress_listener.get().advance("C1", 9)
    token = progress_listener.set(recorder)
    assert not has_no_listener()
    progress_listener.get().add_total("C1", 5)
    progress_listener.get().advance("C1", 2)
    progress_listener.reset(token)
    progress_listener.get().advance("C1", 9)
    assert has_no_listener()
    assert recorder.calls == [("total", "C1", 5), ("done", "C1", 2)]
