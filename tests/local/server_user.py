"""Use a shared server until stdin ends: `python server_user.py KIND DIRECTORY [DATA_TEMPLATE]`.

Prints the server's address as one line of JSON, and "left" after it has left the server.
"""

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from leadloop.local.postgres import run_postgres
from leadloop.local.prefect_ephemeral import run_ephemeral_prefect
from leadloop.local.shared_server import ServerSpec, share_server


@contextmanager
def _run_sleeper(directory: Path) -> Iterator[str]:
    def prepare() -> ServerSpec:
        return ServerSpec(
            command=(sys.executable, "-c", "import time; time.sleep(600)", str(directory)),
            environment={},
            log=directory / "log",
            facts={"which": uuid.uuid4().hex},
        )

    with share_server(directory, prepare) as server:
        yield server.facts["which"]


@contextmanager
def _run_prefect(directory: Path) -> Iterator[str]:
    with run_ephemeral_prefect(directory) as server:
        server.wait()
        yield server.api_url


_KINDS = {"sleeper": _run_sleeper, "postgres": run_postgres, "prefect": _run_prefect}

if __name__ == "__main__":
    kind, directory, *template = sys.argv[1:]
    with ExitStack() as stack:
        if template:
            # Imports asyncio, which takes a while: not for users of other servers.
            from tests.local.initdb_template import replace_initdb

            stack.enter_context(replace_initdb(Path(template[0])))
        address = stack.enter_context(_KINDS[kind](Path(directory)))
        print(json.dumps(address), flush=True)
        sys.stdin.read()
    print("left", flush=True)
