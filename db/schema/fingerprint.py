"""A fingerprint of the schema: comparable lines from Postgres's catalog."""

from sqlalchemy import Connection, text

_TABLES = text("""
SELECT 'the column ' || c.relname || '.' || a.attname || ' '
       || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
  FROM pg_attribute AS a
  JOIN pg_class AS c ON c.oid = a.attrelid
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relnamespace = to_regnamespace('leadloop') AND c.relkind = 'r'
   AND c.relname <> 'alembic_version' AND a.attnum > 0 AND NOT a.attisdropped
 UNION ALL
SELECT 'the constraint ' || conname || ' ' || pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = to_regnamespace('leadloop')
   -- Newer versions of Postgres list NOT NULL as a constraint too.
   AND contype <> 'n' AND conname NOT LIKE 'alembic_version%'
 UNION ALL
SELECT 'the index ' || indexdef FROM pg_indexes
 WHERE schemaname = 'leadloop' AND tablename <> 'alembic_version'
 UNION ALL
SELECT 'the storage of ' || relname || ' ' || array_to_string(reloptions, ', ')
  FROM pg_class WHERE relnamespace = to_regnamespace('leadloop') AND reloptions IS NOT NULL
""")
_REST = text("""
SELECT 'the trigger ' || tgname || ' ' || pg_get_triggerdef(t.oid)
  FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
 WHERE c.relnamespace = to_regnamespace('leadloop') AND NOT tgisinternal
 UNION ALL
SELECT 'the function ' || pg_get_functiondef(oid) || coalesce(array_to_string(proacl, ' '), '')
  FROM pg_proc
 WHERE pronamespace IN (to_regnamespace('leadloop'), to_regnamespace('leadloop_monitor'))
 UNION ALL
SELECT 'the view ' || viewname || ' ' || definition FROM pg_views
 WHERE schemaname IN ('leadloop', 'leadloop_monitor')
 UNION ALL
SELECT 'the comment on ' || objoid::regclass || coalesce('.' || a.attname, '') || ' ' || description
  FROM pg_description AS d
  JOIN pg_class AS c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
  LEFT JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND a.attnum > 0
 WHERE c.relnamespace IN (to_regnamespace('leadloop'), to_regnamespace('leadloop_monitor'))
 UNION ALL
SELECT 'the comment on ' || objoid::regprocedure || ' ' || description
  FROM pg_description AS d JOIN pg_proc AS p ON p.oid = d.objoid AND classoid = 'pg_proc'::regclass
 WHERE p.pronamespace = to_regnamespace('leadloop')
""")


def describe_tables(connection: Connection) -> frozenset[str]:
    """Describe columns, constraints and indexes of the schema `leadloop`, one line each."""
    return frozenset(connection.scalars(_TABLES))


def describe_all(connection: Connection) -> frozenset[str]:
    """Describe the schemas `leadloop` and `leadloop_monitor`, including views and comments."""
    return describe_tables(connection) | frozenset(connection.scalars(_REST))
