"""Commands in this process: without the seconds that a process takes to import Prefect."""

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from leadloop.cli import app
from leadloop.cli.main import run_app
from tests.conftest import Ran

#: A command: arguments, then changes of the environment; `leadloop` and `invoke` both are one.
Command = Callable[..., Ran]

LEADLOOP = str(Path(sys.executable).with_name("leadloop"))


@pytest.fixture
def invoke(environment: Path) -> Command:
    """Run a command in this process, with the settings of `environment`.

    Where signals, streams, logs, the import of Prefect or a server of its own matter, use
    `leadloop`, which starts a process. A flow needs `PREFECT_API_URL=prefect`.
    """

    def run(*arguments: str, **more: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        # Rich reads COLUMNS when a console is made.
        width = int(more.get("COLUMNS", "200"))
        with (
            mock.patch.dict(os.environ, more),
            mock.patch.multiple(app.out, _width=width),
            mock.patch.multiple(app.err, _width=width),
            mock.patch.object(sys, "argv", ["leadloop", *arguments]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code, message = run_app()
            if message:
                print(f"leadloop: {message}", file=sys.stderr)
        lines = out.getvalue().splitlines()
        last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
        return Ran(code=code, out=out.getvalue(), err=err.getvalue(), last=last)

    return run
