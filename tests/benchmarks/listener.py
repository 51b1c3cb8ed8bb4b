"""A bare script that listens and posts each row: no states, no retries, no guarantee.

Run as `listener.py follow`; its environment: tests/benchmarks/peers/environments.py.
"""

import json
import os
import select

import psycopg2
import requests

_ROW = f"""
SELECT json_build_object('lead_id', lead_id, 'phone_number', phone_number,
                         'contact_name', contact_name, 'state_code', state_code)
  FROM {os.environ["BENCH_LEADS"]} WHERE lead_id = %s
"""
_URL = f"{os.environ['BENCH_API_URL']}/api/v1/leads/create/{os.environ['BENCH_CAMPAIGN']}/"


def follow_rows() -> None:
    """Send each row that a notification names, until the process is ended."""
    vendor = requests.Session()
    vendor.headers["Authorization"] = f"Bearer {os.environ['BENCH_TOKEN']}"
    connection = psycopg2.connect(os.environ["BENCH_DATABASE_URL"])
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("LISTEN bench_leads")
    print(json.dumps({"ready": True}), flush=True)
    while True:
        select.select([connection], [], [])
        connection.poll()
        while connection.notifies:
            cursor.execute(_ROW, (connection.notifies.pop(0).payload,))
            ((lead,),) = cursor.fetchall()
            vendor.post(_URL, json=[lead]).raise_for_status()


if __name__ == "__main__":
    follow_rows()
