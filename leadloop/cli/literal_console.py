"""The consoles of the commands: ids, names and the vendor's words cannot drive the terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from leadloop.core.escaping import escape_unprintable


class LiteralConsole(Console):
    """A console that prints every text as it is: without markup, and with unprintable escaped.

    The escape sequences of colours and of progress bars are the console's, not those of a text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render an object to segments, whose texts are printable."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = map(escape_unprintable, segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)
