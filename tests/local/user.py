"""A process that uses a shared server until its input ends: `python user.py KIND DIRECTORY`.

It says in one line of JSON which server it has, and "left" when it has given it back.
"""

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leadloop.local import postgres, prefect_ephemeral
from leadloop.local.shared_server import Launch, borrow


@contextmanager
def _sleeper(directory: Path) -> Iterator[str]:
    def launch() -> Launch:
        return Launch(
            command=(sys.executable, "-c", "import time; time.sleep(600)", str(directory)),
            environment={},
            log=directory / "log",
            facts={"which": uuid.uuid4().hex},
        )

    with borrow(directory, launch) as server:
        yield server.facts["which"]


@contextmanager
def _prefect(directory: Path) -> Iterator[str]:
    with prefect_ephemeral.borrow(directory) as server:
        server.wait()
        yield server.api_url


_KINDS = {"sleeper": _sleeper, "postgres": postgres.running, "prefect": _prefect}

if __name__ == "__main__":
    with _KINDS[sys.argv[1]](Path(sys.argv[2])) as address:
        print(json.dumps(address), flush=True)
        sys.stdin.read()
    print("left", flush=True)
