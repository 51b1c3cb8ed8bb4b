"""The exceptions of leadloop, named by who has to act.

    LeadloopError            one line: what failed and what to do
    ├── UsageError           wrong settings, arguments or set-up; nothing was started (exit 2)
    └── RunError             the run had started and had to end (exit 1)
        ├── Fenced           another run declared this run dead; it must send nothing more
        ├── CampaignDeleted  the campaign's row was deleted during the run
        └── UnexpectedError  a defect: an exception that is not ours, without its text
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


class CampaignDeleted(RunError):
    """The campaign's row was deleted during the run."""

    def __init__(self) -> None:
        super().__init__(
            "its row was deleted; what was done is stored, and its part of the run has ended: to go"
            " on, insert it into leadloop.campaigns again"
        )


class UnexpectedError(RunError):
    """A defect: an exception that is not ours. The message has its type and place, not its text."""


class InvalidLead(ValueError):
    """A lead that must not be sent. The message names the field and never repeats its value."""
