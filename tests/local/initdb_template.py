"""Data of an embedded Postgres that are copied, because initdb takes a second of CPU time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from leadloop.local import postgres, postgres_data


@contextmanager
def replace_initdb(template: Path) -> Iterator[None]:
    """Have every start of an embedded Postgres in this process copy `template`."""

    def copy_data(cluster: postgres._Cluster) -> None:
        owner = cluster.user or (os.getuid(), os.getgid())
        postgres_data._copy_tree(template, cluster.data, owner)

    with patch.object(postgres, "_run_initdb", copy_data):
        yield
