"""Tracebacks without exception texts, which may repeat personal data."""

import traceback
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("flows", "tasks", "db", "leadloop")


def format_traceback(error: BaseException) -> str:
    """Format the traceback of an exception and of its causes: frames and types, no texts."""
    parts: list[str] = []
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        frames = traceback.extract_tb(each.__traceback__)
        parts.insert(0, f"{''.join(frames.format())}{type(each).__qualname__}")
        each = each.__cause__ or each.__context__
    return "\nthen:\n".join(parts)


def find_origin(error: BaseException) -> str:
    """Return the last line of leadloop's code that an exception passed, as `path:line`."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{path.relative_to(_ROOT)}:{frame.lineno}"
        for frame in frames
        if (path := Path(frame.filename)).is_relative_to(_ROOT)
        and path.relative_to(_ROOT).parts[0] in _PACKAGES
    ]
    return ours[-1] if ours else "an unknown place"
