"""What can go wrong, named by who has to act.

    LeadloopError            one line that says what is wrong and what to do
    ├── UsageError           wrong settings, arguments or set-up; nothing was begun (exit 2)
    └── RunError             the run had begun and had to end (exit 1)
        ├── RetryLater         time will mend it; the work that is left may be repeated
        └── Fenced           another run has declared this one dead; it must send nothing more

Messages carry ids and counts only: they end up in Prefect's states and in logs.
"""


class LeadloopError(Exception):
    """Base of all errors that a user is meant to read: one line, what is wrong and what to do."""


class UsageError(LeadloopError):
    """Wrong usage or settings, found before the run began."""


class RunError(LeadloopError):
    """A run that had begun could not do all of its work."""


class RetryLater(RunError):
    """The work that is left may be tried again after a pause.

    `fruitless` counts the tries in a row that got nothing done, this one included.
    """

    def __init__(self, message: str, *, fruitless: int) -> None:
        super().__init__(message)
        self.fruitless_attempts = fruitless


class Fenced(RunError):
    """This run was declared dead by another one and may send nothing more."""
