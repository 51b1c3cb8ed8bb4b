"""The permissions that a role needs to run flows and commands, as the documentation grants them."""

from sqlalchemy import Connection, text

#: The privileges on each table beside SELECT, which every table and view needs.
WRITES = {
    "INSERT, UPDATE": (
        *("campaigns", "leads", "disable_requests", "sync_runs", "lead_outcomes"),
        *("outreach_attempts", "unreadable_results", "watermarks", "poll_windows", "rate_slots"),
        *("suppressed_numbers", "forgotten", "sent_leads", "owed_windows", "learned_limits"),
        *("database_identity", "create_holds", "latencies", "counts", "count_changes"),
        *("opt_ins", "learned_answers", "opt_out_source_rows", "opt_out_source_reads"),
        "held_removals",
    ),
    "DELETE": (
        *("leads", "rate_slots", "poll_windows", "sync_runs", "unreadable_results", "sent_leads"),
        *("owed_windows", "learned_limits", "latencies", "counts", "count_changes"),
        *("attempt_changes", "opt_out_source_rows", "held_removals"),
    ),
}
_NEEDED = [
    {"relation": f"leadloop.{table}", "privilege": privilege}
    for privileges, tables in WRITES.items()
    for table in tables
    for privilege in privileges.split(", ")
]
_MISSING = text("""
SELECT DISTINCT privilege || ' ON ' || relation AS missing FROM (
    SELECT relation, privilege FROM unnest(CAST(:relations AS text[]), CAST(:privileges AS text[]))
           AS needed (relation, privilege)
     WHERE NOT has_table_privilege(to_regclass(relation), privilege)
     UNION ALL
    SELECT CAST(CAST(oid AS regclass) AS text), 'SELECT' FROM pg_class
     WHERE relnamespace IN (to_regnamespace('leadloop'), to_regnamespace('leadloop_monitor'))
       AND relkind IN ('r', 'p', 'v') AND NOT has_table_privilege(oid, 'SELECT')
     UNION ALL
    SELECT 'FUNCTION leadloop.read_database_identity()', 'EXECUTE'
     WHERE NOT has_function_privilege('leadloop.read_database_identity()', 'EXECUTE')
     UNION ALL
    SELECT 'DATABASE ' || quote_ident(current_database()), 'TEMPORARY'
     WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')) AS found
 ORDER BY missing
""")


def list_missing_permissions(connection: Connection) -> list[str]:
    """List the permissions that this login lacks to run flows, as `INSERT ON leadloop.leads`."""
    return list(
        connection.scalars(
            _MISSING,
            {name + "s": [each[name] for each in _NEEDED] for name in ("relation", "privilege")},
        )
    )
