"""DBOS: a durable workflow for each row, which a listener starts (follow).

Set up as its documents advise (https://docs.dbos.dev, as of dbos 3.4): the request is a step of a
workflow, and the workflow's id is the lead's, so that a row starts one workflow. The listener is
ours: DBOS itself has no trigger for rows of a table, and its queues are looked at once a second.
A step that was under way when its process was killed is sent again.
"""

import json
import os

import psycopg  # type: ignore[import-not-found, unused-ignore]
import requests
from dbos import DBOS, SetWorkflowID  # type: ignore[import-not-found, unused-ignore]

BENCH = {name.removeprefix("BENCH_"): value for name, value in os.environ.items()}
URL = f"{BENCH['API_URL']}/api/v1/leads/create/{BENCH['CAMPAIGN']}/"
ROW = """
SELECT lead_id, json_build_object('lead_id', lead_id, 'phone_number', phone_number,
                                  'contact_name', contact_name, 'state_code', state_code)
  FROM {leads} WHERE lead_id = %s
"""
VENDOR = requests.Session()
VENDOR.headers["Authorization"] = f"Bearer {BENCH['TOKEN']}"


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
def create_lead(lead: dict[str, str]) -> None:
    """Send one create request."""
    VENDOR.post(URL, json=[lead]).raise_for_status()


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
def send_lead(lead: dict[str, str]) -> None:
    """Send a lead, durably."""
    create_lead(lead)


def follow_rows() -> None:
    """Start a workflow for each row that a notification names, until the process is ended."""
    config = {"name": "bench", "system_database_url": BENCH["DATABASE_URL"]}
    DBOS(config={**config, "log_level": "WARNING", "dbos_system_schema": BENCH["SCHEMA"]})
    DBOS.launch()
    # psycopg runs no statement on a connection that waits for notifications.
    listener, rows = (psycopg.connect(BENCH["DATABASE_URL"], autocommit=True) for _ in range(2))
    with listener, rows:
        listener.execute("LISTEN bench_leads")
        print(json.dumps({"ready": True}), flush=True)
        for notification in listener.notifies():
            query = ROW.format(leads=BENCH["LEADS"])
            lead_id, lead = rows.execute(query, (notification.payload,)).fetchone()
            with SetWorkflowID(lead_id):
                DBOS.start_workflow(send_lead, lead)


if __name__ == "__main__":
    follow_rows()
