"""drt: a sync from Postgres to its rest_api destination (push). Polling is not its job.

It activates what lies in a warehouse: nothing in it lands nested answers as rows of Postgres.

Set up as its documents advise (https://github.com/drt-hub/drt, as of drt-core 1.2):

- issue 770, where `body_mode: batch` came in: `max_records_per_request` leads a request. The
  `batch_size` of the engine is larger, as each of its batches opens a new connection.
- docs/llm/API_REFERENCE.md: `requests_per_second: 0` turns its rate limit of 10 a second off.
- README: `drt run --threads` runs syncs at once, not the requests of one. So each of as many syncs
  as leadloop has requests in flight takes its share of the leads.

`push-new` pushes what has come in since its last run, by one incremental sync; see live_peers.py.

It does less than leadloop: pushing leaves no mark on the leads.
"""

import json
import os
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from drt.cli.main import app  # type: ignore[import-not-found, unused-ignore]

SYNCS = 4
BENCH = {name.removeprefix("BENCH_"): value for name, value in os.environ.items()}
MODEL = """
select custom_fields || jsonb_build_object(
    'lead_id', lead_id, 'phone_number', phone_number,
    'contact_name', contact_name, 'state_code', state_code
) as lead
from {leads} where abs(mod(hashtext(lead_id), {syncs})) = {share}
"""
NEW_MODEL = """
select seq, jsonb_build_object(
    'lead_id', lead_id, 'phone_number', phone_number,
    'contact_name', contact_name, 'state_code', state_code
) as lead
from {leads}
"""


def run_push() -> dict[str, Any]:
    """Send the leads to the create route, 100 a request."""
    output = StringIO()
    with redirect_stdout(output):
        failed = app(["run", "--threads", str(SYNCS), "--output", "json"], standalone_mode=False)
    if failed:
        sys.exit(f"drt has failed: {output.getvalue()}")
    return {"leads": sum(sync["rows_synced"] for sync in json.loads(output.getvalue())["syncs"])}


def write_project(home: Path, syncs: list[dict[str, Any]]) -> None:
    """Write the files of `drt init` and an editor: a project, its syncs and a profile."""
    _write_yaml(home / "drt_project.yml", {"name": "push", "profile": "leads"})
    _write_yaml(home / ".drt" / "profiles.yml", {"leads": _build_profile()})
    for sync in syncs:
        _write_yaml(home / "syncs" / f"{sync['name']}.yml", sync)


def _write_yaml(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def _build_profile() -> dict[str, Any]:
    url = urlsplit(BENCH["DATABASE_URL"])
    asked = dict(parse_qsl(url.query))
    return {
        "type": "postgres",
        "host": asked.get("host", url.hostname),
        "port": int(asked.get("port", url.port or 5432)),
        "dbname": url.path.lstrip("/"),
        "user": url.username,
        "password": url.password,
    }


def build_shares() -> list[dict[str, Any]]:
    """Return syncs of all leads that run at once."""
    return [
        _build_sync(f"leads_{share}", MODEL.format(leads=BENCH["LEADS"], syncs=SYNCS, share=share))
        for share in range(SYNCS)
    ]


def build_incremental() -> list[dict[str, Any]]:
    """Return a sync of the leads after the last one that it has sent."""
    mode = {"mode": "incremental", "cursor_field": "seq"}
    return [_build_sync("leads", NEW_MODEL.format(leads=BENCH["LEADS"]), **mode)]


def _build_sync(name: str, model: str, **options: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": model,
        "destination": {
            "type": "rest_api",
            "url": f"{BENCH['API_URL']}/api/v1/leads/create/{BENCH['CAMPAIGN']}/",
            "auth": {"type": "bearer", "token_env": "BENCH_TOKEN"},
            "headers": {"Content-Type": "application/json"},
            "body_mode": "batch",
            "batch_template": "{{ rows | map(attribute='lead') | list | tojson_safe }}",
            "max_records_per_request": 100,
        },
        "sync": {"batch_size": 10000, "rate_limit": {"requests_per_second": 0}, **options},
    }


if __name__ == "__main__":
    if sys.argv[1] not in ("push", "push-new"):
        sys.exit("drt reads tables and pushes them elsewhere: it has no poll")
    os.environ["HOME"] = BENCH["WORK"]
    os.chdir(BENCH["WORK"])
    write_project(Path.cwd(), build_shares() if sys.argv[1] == "push" else build_incremental())
    started = time.monotonic()
    rows = run_push()
    seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "requests": None, "rows": rows}))
