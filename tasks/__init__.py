"""The jobs of the flows: where the database and the vendor's API meet.

Nothing in this package but `blocks` and `prefect_progress` knows Prefect.

Jobs, one file each:
    push            create new leads at the vendor, in batches
    poll            read windows of outcomes, and backfill a range
    disable         send opt-outs until the vendor confirms each
    audit           compare all leads with the vendor's listing, and repair
    housekeeping    purge old rows

How jobs run:
    jobs            the job protocol and the runner: one job a campaign, in turns
    context         database, settings and API of a flow run; the row of a campaign's run
    api_session     transport, login and rate limiter of the vendor's API
    rate_limiter    permits for requests, shared by all processes
    retries         back-off after failures that may pass
    thread_pool     the threads of concurrent requests
    counters        thread-safe counts of a job
    blocks          Prefect blocks and run parameters as settings
    prefect_progress  Prefect's progress artifacts

Parts of jobs:
    source_sync     push: make a campaign's leads follow its own table or view
    batch_claimer   push: claim new leads, check them, drop opted-out numbers
    batch_limits    push: the leads and bytes of a request that the vendor takes
    send_pace       push: how many requests are sent at once
    in_doubt        push, disable: look up leads that may have been created
    in_doubt_listing  push: settle many of them by the campaign's listing
    probes          push, disable: harmless requests that tell an outage from a failure
    rejection_streak  push, disable: notice that the vendor rejects the whole campaign
    push_preview    the dry run of a push
    page_reader     poll: read one page, where necessary in smaller ones
    window_pages    poll: what the pages of a read add up to
    window_reader   poll: read one window page by page and verify it
    lead_listing    audit: read the vendor's listing of all leads
"""
