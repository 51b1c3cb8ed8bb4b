import time

from leadloop.sandbox.rules import Rules
from leadloop.sandbox.state import SandboxState


def test_the_clock_follows_the_rules_in_force() -> None:
    """An offset that changes while the sandbox runs moves the vendor's time at once."""
    sandbox = SandboxState(Rules(clock_offset=-3600))
    assert abs(sandbox.clock.now() / 1000 - (time.time() - 3600)) < 60
    sandbox.rules = sandbox.rules.with_changes(clock_offset=7200)
    assert abs(sandbox.clock.now() / 1000 - (time.time() + 7200)) < 60
