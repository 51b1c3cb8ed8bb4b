"""The tutorial: a naive push with one Prefect task, one request and one UPDATE a lead.

Run as `tutorial.py push`; its environment and output: tests/benchmarks/peers/environments.py.
"""

import json
import os
import time

import psycopg2
import requests
from prefect import flow, task

_URL = f"{os.environ['BENCH_API_URL']}/api/v1/leads/create/{os.environ['BENCH_CAMPAIGN']}/"
_LEADS = os.environ["BENCH_LEADS"]


@task(retries=3, retry_delay_seconds=1)
def send_lead(lead_id: str) -> None:
    """Send one lead and record that it was sent."""
    with psycopg2.connect(os.environ["BENCH_DATABASE_URL"]) as connection:
        cursor = connection.cursor()
        cursor.execute(
            f"SELECT phone_number, contact_name, state_code, custom_fields FROM {_LEADS}"
            " WHERE lead_id = %s",
            (lead_id,),
        )
        ((phone, name, state, custom),) = cursor.fetchall()
        lead = {"lead_id": lead_id, "phone_number": phone, "contact_name": name}
        answer = requests.post(
            _URL,
            json=[{**lead, "state_code": state, **custom}],
            headers={"Authorization": f"Bearer {os.environ['BENCH_TOKEN']}"},
        )
        answer.raise_for_status()
        cursor.execute(f"UPDATE {_LEADS} SET sent_at = now() WHERE lead_id = %s", (lead_id,))
    connection.close()


@flow
def send_leads() -> None:
    """Send all unsent leads, and print the duration and count."""
    with psycopg2.connect(os.environ["BENCH_DATABASE_URL"]) as connection:
        cursor = connection.cursor()
        cursor.execute(f"ALTER TABLE {_LEADS} ADD COLUMN IF NOT EXISTS sent_at timestamptz")
        cursor.execute(f"SELECT lead_id FROM {_LEADS} WHERE sent_at IS NULL")
        ids = [row[0] for row in cursor.fetchall()]
    connection.close()
    began = time.monotonic()
    for lead_id in ids:
        send_lead(lead_id)
    print(json.dumps({"seconds": time.monotonic() - began, "rows": {"leads": len(ids)}}))


if __name__ == "__main__":
    send_leads()
