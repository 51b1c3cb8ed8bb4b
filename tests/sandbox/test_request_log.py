from leadloop.sandbox.request_log import count_busiest_window
from tests.sandbox.http_client import StartSandbox, lead


def test_the_log_shows_kind_and_status_but_no_secret(start_sandbox: StartSandbox) -> None:
    """Tests judge a client by this log; it holds neither token nor body."""
    api = start_sandbox()
    api.create([lead("a")])
    api.read(page=1)
    api.call("GET", "/nope")
    log = api.handle.requests
    assert [(e.kind, e.status, e.query) for e in log] == [
        ("create", 201, ""),
        ("responses", 200, "page=1"),
        ("other", 404, ""),
    ]
    assert all(e.bearer for e in log)
    assert "sandbox-token" not in repr(log) + repr(api.handle.rules)


def test_the_busiest_window_counts_every_window() -> None:
    """Half-open windows of the length asked for, wherever they start."""
    assert count_busiest_window([], 1) == 0
    assert count_busiest_window([0.0, 0.5, 0.9, 1.0, 1.4], 1) == 4
    assert count_busiest_window([0.0, 1.0, 2.0], 1) == 1
