"""The environments of the peers: what leadloop's poll and push are measured beside.

| peer | poll | push | runs |
| --- | --- | --- | --- |
| `dlt` | rest_api source to Postgres | resource to its custom destination | `run_dlt.py` |
| `drt` | no: it only activates, Postgres to elsewhere | Postgres to its rest_api | `run_drt.py` |
| `singer` | a tap on singer-sdk to target-postgres | no: a tap reads | `run_singer.py` |

Each has what it needs in `<peer>.in`, pinned with hashes in `<peer>.lock`, and an environment of
its own made from that. It is run as `<its python> run_<peer>.py poll|push`, does the work once and
prints one JSON line: `seconds` of work (without the start of the interpreter and imports),
`requests` it made (null: it does not say), and `rows` that landed. The environment tells it:

- `BENCH_DATABASE_URL`, a libpq URL; `BENCH_SCHEMA`, which it fills; `BENCH_LEADS`, the table of
  leads to push (lead_id, phone_number, contact_name, state_code, custom_fields);
- `BENCH_API_URL`, `BENCH_TOKEN`, `BENCH_CAMPAIGN`; `BENCH_AFTER`, `BENCH_BEFORE`, epoch ms;
- `BENCH_WORK`, an empty folder for what it writes on the way.
"""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet", "install")


def environment(name: str, root: Path) -> Path:
    """The Python of the peer's environment under `root`, made where it is missing or outdated.

    Raises:
        subprocess.CalledProcessError: it cannot be made; what pip says is on stderr.
    """
    folder, lock = root / name, (_HERE / f"{name}.lock").read_text()
    python, made_from = folder / "bin" / "python", folder / "made-from.lock"
    if not (python.exists() and made_from.exists() and made_from.read_text() == lock):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        wanted = ("--require-hashes", "--no-deps", "-r", _HERE / f"{name}.lock")
        subprocess.run([python, *_PIP, *wanted], check=True)
        made_from.write_text(lock)
    return python


def script(name: str) -> Path:
    """What the peer's Python is to run."""
    return _HERE / f"run_{name}.py"
