"""`make bench`: all parts, or those named; see docs/benchmarks.md, which it writes."""

import os
import sys
import tempfile
import traceback
from pathlib import Path

from tests.bench import claim, counts, idle, loop, memory, report, sharing
from tests.bench.stage import staged

_PARTS = {
    "push": loop.push,
    "poll": loop.poll,
    "requests": counts.requests,
    "budget": sharing.budget,
    "claim": claim.claim,
    "memory": memory.memory,
    "idle": idle.idle,
    "wal": counts.wal,
}


def main() -> None:
    """Measure, print, and write the document."""
    names = os.environ.get("ONLY", ",".join(_PARTS)).split(",")
    unknown = set(names) - _PARTS.keys()
    if unknown:
        sys.exit(f"ONLY: {', '.join(sorted(unknown))}: the parts are {', '.join(_PARTS)}")
    amount, turns = int(os.environ.get("AMOUNT", "50000")), int(os.environ.get("TURNS", "3"))
    failed = []
    with tempfile.TemporaryDirectory(prefix="leadloop-bench-") as directory:
        Path(directory).chmod(0o755)
        with staged(Path(directory)) as stage:
            for name in names:
                machine = report.machine()
                try:
                    sections = _PARTS[name](stage, amount, turns)
                except Exception:
                    # The others are worth their figures all the same.
                    traceback.print_exc()
                    failed.append(name)
                    continue
                told = {section.title: section.told(machine) for section in sections}
                print(*told.values(), sep="\n", flush=True)
                report.write(told)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the others are written")


if __name__ == "__main__":
    main()
