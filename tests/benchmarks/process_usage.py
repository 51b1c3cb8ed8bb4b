"""CPU seconds of a process with all its descendants, living and ended."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class ProcessUsage:
    """A process's parent, and the CPU seconds of itself and of its children that it has reaped."""

    parent: int
    cpu_s: float


def read_cpu_seconds(root: int) -> float:
    """Return the CPU seconds of a process and its descendants until now."""
    return sum_cpu_seconds(root, _read_processes())


def sum_cpu_seconds(root: int, processes: Mapping[int, ProcessUsage]) -> float:
    """Add up the CPU seconds of a process and its descendants.

    A reaped process counts in its parent, so that the sum never falls.
    """
    children = (pid for pid, usage in processes.items() if usage.parent == root)
    own = processes[root].cpu_s if root in processes else 0.0
    return own + sum(sum_cpu_seconds(pid, processes) for pid in children)


def parse_process_usage(stat: str) -> ProcessUsage:
    """Parse /proc/PID/stat; the name of the program, in parentheses, may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return ProcessUsage(parent=int(fields[1]), cpu_s=sum(map(int, fields[11:15])) / _TICKS_PER_S)


def _read_processes() -> dict[int, ProcessUsage]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found[int(entry.name)] = parse_process_usage((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
    return found
