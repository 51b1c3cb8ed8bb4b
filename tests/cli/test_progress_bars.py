"""Progress bars where stderr is no terminal."""

import io

from rich.console import Console

from leadloop.cli.progress_bars import show_progress_bars


def test_the_last_state_is_printed() -> None:
    """One line a label; a label without a total is complete as far as it got."""
    output = io.StringIO()
    with show_progress_bars(Console(file=output, width=80)) as listener:
        listener.add_total("push", 5)
        listener.add_total("push", 5)
        listener.advance("push", 4)
        listener.advance("pages", 3)
    push, pages = (line for line in output.getvalue().splitlines() if "/" in line)
    assert {"push", "4/10"} <= set(push.split())
    assert {"pages", "3/3"} <= set(pages.split())
