"""The virtual environments of the peers, with which leadloop's poll and push are compared.

| peer | poll | push | runs |
| --- | --- | --- | --- |
| `dlt` | rest_api source to Postgres | resource to its custom destination | `run_dlt.py` |
| `drt` | no: it only activates, Postgres to elsewhere | Postgres to its rest_api | `run_drt.py` |
| `singer` | a tap on singer-sdk to target-postgres | no: a tap reads | `run_singer.py` |
| `pgqueuer` | no | a job for each row, as it comes in (`follow`) | `run_pgqueuer.py` |
| `dbos` | no | a workflow for each row, as it comes in (`follow`) | `run_dbos.py` |

Each peer has its requirements in `<peer>.in`, pinned with hashes in `<peer>.lock`, and its own
virtual environment. `<its python> run_<peer>.py poll|push` does the work once and prints one JSON
line: `seconds` of work (without the start of the interpreter and imports), the number of `requests`
(null: unknown), and the `rows` stored. `push-new` sends what has come in since its last run.
`follow` prints a line once it listens, and sends each row until it is ended. All of them read
these environment variables:

- `BENCH_DATABASE_URL`, a libpq URL; `BENCH_SCHEMA`, the schema to fill; `BENCH_LEADS`, the table of
  leads to push (lead_id, phone_number, contact_name, state_code, custom_fields);
- `BENCH_API_URL`, `BENCH_TOKEN`, `BENCH_CAMPAIGN`; `BENCH_AFTER`, `BENCH_BEFORE`, epoch ms;
- `BENCH_WORK`, an empty folder for temporary files.
"""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet", "install")


def ensure_environment(name: str, root: Path) -> Path:
    """Return the Python of the peer's environment; create it if missing or outdated.

    Raises:
        subprocess.CalledProcessError: the creation failed; pip's errors are on stderr.
    """
    folder, lock = root / name, (_HERE / f"{name}.lock").read_text()
    python, made_from = folder / "bin" / "python", folder / "made-from.lock"
    if not (python.exists() and made_from.exists() and made_from.read_text() == lock):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        wanted = ("--require-hashes", "--no-deps", "-r", _HERE / f"{name}.lock")
        subprocess.run([python, *_PIP, *wanted], check=True)
        made_from.write_text(lock)
    return python


def find_script(name: str) -> Path:
    """Return the script for the peer's Python."""
    return _HERE / f"run_{name}.py"
