"""Standard output that nobody reads, or that cannot be written."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import LEADLOOP


@pytest.mark.parametrize(
    ("arguments", "redirection", "code"),
    [
        ("status --json", "> /dev/full", 0),
        ("status", ">&-", 0),
        ("status", "| true", 0),
        ("status --nonsense", "2>&-", 2),
        ("status --nonsense", "2> /dev/full", 2),
    ],
)
def test_output_that_nobody_takes_ends_no_command(
    environment: Path, arguments: str, redirection: str, code: int
) -> None:
    """The exit code is the command's own, and no `Exception ignored` is seen."""
    script = f'{{ "{LEADLOOP}" {arguments}; echo $? > code; }} {redirection}'
    ran = subprocess.run(["bash", "-c", script], cwd=environment, capture_output=True, text=True)
    assert (environment / "code").read_text() == f"{code}\n"
    assert "Exception" not in ran.stderr
    assert "Traceback" not in ran.stderr
