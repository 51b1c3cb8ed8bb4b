"""pgqueuer: a job for each row, which a trigger puts in its queue (follow).

Set up as its README advises (https://github.com/janbjorge/pgqueuer, as of 1.6): a consumer on
asyncpg, which notifications wake; the job is queued in the row's own transaction. A job that was
under way when its process was killed is run again.
"""

import asyncio
import json
import os

import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]
import requests
from pgqueuer import PgQueuer  # type: ignore[import-not-found, unused-ignore]
from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found, unused-ignore]
from pgqueuer.models import Job  # type: ignore[import-not-found, unused-ignore]
from pgqueuer.queries import Queries  # type: ignore[import-not-found, unused-ignore]

BENCH = {name.removeprefix("BENCH_"): value for name, value in os.environ.items()}
URL = f"{BENCH['API_URL']}/api/v1/leads/create/{BENCH['CAMPAIGN']}/"
TRIGGER = f"""
CREATE OR REPLACE FUNCTION bench.queue_lead() RETURNS trigger
LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    INSERT INTO pgqueuer (priority, entrypoint, payload, status)
    SELECT 0, 'create_lead', convert_to(CAST(json_build_object(
               'lead_id', NEW.lead_id, 'phone_number', NEW.phone_number,
               'contact_name', NEW.contact_name, 'state_code', NEW.state_code) AS text), 'UTF8'),
           'queued';
    RETURN NEW;
END $$;
CREATE TRIGGER queue_lead AFTER INSERT ON {BENCH["LEADS"]}
    FOR EACH ROW EXECUTE FUNCTION bench.queue_lead();
"""
VENDOR = requests.Session()
VENDOR.headers["Authorization"] = f"Bearer {BENCH['TOKEN']}"


def send_lead(lead: bytes) -> None:
    """Send one create request."""
    VENDOR.post(URL, json=[json.loads(lead)]).raise_for_status()


async def follow_rows() -> None:
    """Run the jobs until the process is ended."""
    connection = await asyncpg.connect(BENCH["DATABASE_URL"])
    driver = AsyncpgDriver(connection)
    await Queries(driver).install()
    await connection.execute(TRIGGER)
    queuer = PgQueuer(driver)

    @queuer.entrypoint("create_lead")  # type: ignore[untyped-decorator, unused-ignore]
    async def create_lead(job: Job) -> None:
        await asyncio.to_thread(send_lead, job.payload)

    print(json.dumps({"ready": True}), flush=True)
    await queuer.run()


if __name__ == "__main__":
    asyncio.run(follow_rows())
