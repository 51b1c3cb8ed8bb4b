"""Servers that local runs, `leadloop demo` and `leadloop up` start, and stop with the last user.

postgres           the embedded Postgres
postgres_data      its programs and data in /var/lib/leadloop, where root starts it
prefect_ephemeral  a minimal Prefect server for one run, or a few at once
prefect_stack      a complete Prefect: server with UI and schedules, and a worker
shared_server      how processes share a server: locks, start, stop
supervisor         the parent process of a shared server
private_files      files with mode 0600 in a directory that another user may own
"""
