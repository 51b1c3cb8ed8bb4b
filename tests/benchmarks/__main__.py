"""`make bench`: run all benchmarks or the named ones, and write docs/benchmarks.md."""

import os
import sys
import tempfile
import traceback
from pathlib import Path

from tests.benchmarks import (
    claim,
    counts,
    flaky,
    flaky_creates,
    growth,
    idle_runs,
    live,
    live_idle,
    live_peers,
    loop,
    memory,
    report,
    shared_rate_limit,
)
from tests.benchmarks.bench_environment import run_bench_environment

_PARTS = {
    "push": loop.measure_push,
    "poll": loop.measure_poll,
    "requests": counts.count_requests,
    "budget": shared_rate_limit.measure_rate_limit,
    "flaky": lambda *given: [
        *flaky.measure_flaky(*given),
        *flaky_creates.measure_flaky_creates(*given),
    ],
    "claim": claim.measure_claims,
    "memory": memory.measure_memory,
    "idle": idle_runs.measure_idle_runs,
    "wal": counts.measure_wal,
    "growth": growth.measure_growth,
    "live": live.measure_live,
    "live-peers": live_peers.measure_live_peers,
    "live-idle": live_idle.measure_live_idle,
}


def main() -> None:
    """Run the benchmarks, print their sections, and write them to the document."""
    names = os.environ.get("ONLY", ",".join(_PARTS)).split(",")
    unknown = set(names) - _PARTS.keys()
    if unknown:
        sys.exit(f"ONLY: {', '.join(sorted(unknown))}: the parts are {', '.join(_PARTS)}")
    amount, turns = int(os.environ.get("AMOUNT", "50000")), int(os.environ.get("TURNS", "3"))
    failed = []
    with tempfile.TemporaryDirectory(prefix="leadloop-bench-") as directory:
        Path(directory).chmod(0o755)
        with run_bench_environment(Path(directory)) as bench:
            for name in names:
                machine = report.describe_machine()
                try:
                    sections = _PARTS[name](bench, amount, turns)
                except Exception:
                    # A failure must not cost the figures of the other parts.
                    traceback.print_exc()
                    failed.append(name)
                    continue
                texts = {section.title: section.format_markdown(machine) for section in sections}
                print(*texts.values(), sep="\n", flush=True)
                report.write_sections(texts)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the others are written")


if __name__ == "__main__":
    main()
