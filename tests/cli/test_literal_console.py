"""What a terminal gets of texts that somebody else wrote."""

import io

from rich.table import Table
from rich.text import Text

from leadloop.cli.literal_console import LiteralConsole

_HOSTILE = "[red]C[/] \x1b]0;title\x07 :smile: \u202e"


def test_no_text_drives_the_terminal() -> None:
    """Neither as a line, nor in a table, nor as its title: colours stay, and are the console's."""
    output = io.StringIO()
    console = LiteralConsole(file=output, width=120, force_terminal=True, color_system="standard")
    table = Table(title=_HOSTILE)
    table.add_column(_HOSTILE)
    table.add_row(Text(_HOSTILE, "red"))
    console.print(_HOSTILE, highlight=False)
    console.print(table)
    shown = output.getvalue()
    # Rich itself drops a bell.
    assert shown.startswith(r"[red]C[/] \u001b]0;title :smile: \u202e")
    assert "\x1b[31m" in shown
    assert not any(sign in shown for sign in ("\x1b]", "\x07", "\u202e"))
