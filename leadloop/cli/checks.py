"""The results of the doctor's checks, collected one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from leadloop.client.errors import ApiError
from leadloop.core.errors import LeadloopError


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    is_warning: bool = False

    @property
    def is_settings_fault(self) -> bool:
        """Whether the check failed because of a setting alone."""
        return not self.ok and self.name in ("settings", "login")

    def as_json(self) -> dict[str, Any]:
        """Return the check as `--json` prints it."""
        return {"check": self.name, "ok": self.ok, "warns": self.is_warning, "detail": self.detail}


@dataclass(kw_only=True)
class RunningCheck:
    """What a check has found so far."""

    detail: str = ""
    is_warning: bool = False
    failed: bool = False


class Checklist(list[Check]):
    """The results so far."""

    @contextmanager
    def record(self, name: str) -> Iterator[RunningCheck]:
        """Record the result of the check in the block; it fails by an exception, its detail."""
        check = RunningCheck()
        try:
            yield check
        except (LeadloopError, ApiError) as error:
            check.failed, check.detail = True, str(error)
        self.append(
            Check(
                name=name,
                ok=not check.failed,
                detail=check.detail,
                is_warning=check.is_warning,
            )
        )
