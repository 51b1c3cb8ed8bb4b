"""The exceptions of leadloop, named by who has to act.

    LeadloopError            one line: what failed and what to do
    ├── UsageError           wrong settings, arguments or set-up; nothing was started (exit 2)
    └── RunError             the run had started and had to end (exit 1)
        └── Fenced           another run declared this run dead; it must send nothing more
    InvalidLead              a lead failed validation (a ValueError)

Messages carry ids and counts only: they end up in Prefect's states and in logs.
"""


class LeadloopError(Exception):
    """Base of all errors for users: one line with what failed and what to do."""


class UsageError(LeadloopError):
    """Wrong usage or settings, found before the run started."""


class RunError(LeadloopError):
    """A run that had started could not complete its work."""


class Fenced(RunError):
    """Another run declared this run dead; it may send nothing more."""


class InvalidLead(ValueError):
    """A lead that must not be sent. The message names the field and never repeats its value."""
