"""The problems that the view `leadloop_monitor.problems` reports: severity, meaning, command.

The rules are the view's, and a test compares both. The thresholds are in the view `thresholds`, and
those of a campaign in `campaign_thresholds`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """A kind of problem.

    Args:
        severity: of the view's rows.
        name: of the view's rows, and of its threshold if there is one.
        meaning: when there is such a row, and what it means.
        commands: with which the problem is dealt with; the view adds the campaign.
    """

    severity: Literal["critical", "warning"]
    name: str
    meaning: str
    commands: tuple[str, ...]


_AUDIT = ("leadloop audit",)
_DOCTOR = ("leadloop doctor",)
_STATUS = ("leadloop status",)

#: In the order of the view's rules.
PROBLEM_KINDS = (
    ProblemKind(
        severity="critical",
        name="opt_outs_waiting",
        meaning="Opt-outs that the vendor has not confirmed: these people may still be called.",
        commands=("leadloop disable",),
    ),
    ProblemKind(
        severity="critical",
        name="opt_outs_failed",
        meaning="Opt-outs that the vendor does not confirm, retried at least daily. They are a"
        " problem at the age of `opt_outs_waiting`.",
        commands=("leadloop requeue --disables",),
    ),
    ProblemKind(
        severity="critical",
        name="opt_outs_misspelt",
        meaning="Opt-outs without a lead, while a lead whose id differs only in case, blanks or"
        " invisible characters is not opted out.",
        commands=("leadloop disable",),
    ),
    ProblemKind(
        severity="warning",
        name="opt_outs_unknown",
        meaning="Opt-outs that name no known lead.",
        commands=_AUDIT,
    ),
    ProblemKind(
        severity="critical",
        name="opt_outs_unread",
        meaning="The campaign's opt-out source cannot be read, or its opt-outs cannot be put on"
        " record, so no lead is sent. It is a problem at the age of `opt_outs_waiting`.",
        commands=_DOCTOR,
    ),
    ProblemKind(
        severity="critical",
        name="opt_outs_unreadable",
        meaning="Rows of the campaign's opt-out source that cannot be read, or that have no valid"
        " lead id or phone number: these people may be called.",
        commands=("leadloop disable",),
    ),
    ProblemKind(
        severity="critical",
        name="removals_held",
        meaning="Leads that were sent, and whose rows have left the campaign's source: too many to"
        " opt out without a person (`on_source_removal`).",
        commands=("leadloop opt-out --left-source",),
    ),
    ProblemKind(
        severity="critical",
        name="creates_held",
        meaning="The database may have forgotten sent leads, so no lead is created.",
        commands=("leadloop audit --repair",),
    ),
    ProblemKind(
        severity="critical",
        name="poll_behind",
        meaning="Polls have not read up to this time: outcomes may be missing.",
        commands=("leadloop poll",),
    ),
    ProblemKind(
        severity="critical",
        name="windows_owed",
        meaning="Windows of outcomes that could not be read completely, and that nobody has"
        " accepted.",
        commands=("leadloop owed",),
    ),
    ProblemKind(
        severity="warning",
        name="results_unreadable",
        meaning="Results of the vendor that could not be parsed, kept in `unreadable_results`.",
        commands=_AUDIT,
    ),
    ProblemKind(
        severity="warning",
        name="outcomes_unknown",
        meaning="None of the new outcomes belongs to a known lead, while sent leads wait for"
        " theirs.",
        commands=_AUDIT,
    ),
    ProblemKind(
        severity="warning",
        name="leads_unsent",
        meaning="Leads that wait to be sent, in a campaign that is enabled.",
        commands=("leadloop push", "leadloop resume"),
    ),
    ProblemKind(
        severity="warning",
        name="leads_in_doubt",
        meaning="Leads of which it is not known whether the vendor holds them.",
        commands=("leadloop audit --repair",),
    ),
    ProblemKind(
        severity="warning",
        name="doubts_growing",
        meaning="Each of the last three pushes left more leads in doubt.",
        commands=_AUDIT,
    ),
    ProblemKind(
        severity="warning",
        name="leads_rejected",
        meaning="Pushes rejected ten leads or more, and more than they created.",
        commands=("leadloop requeue --rejected",),
    ),
    ProblemKind(
        severity="warning",
        name="rows_unreadable",
        meaning="Rows of the campaign's source that the last push could not read.",
        commands=("leadloop push",),
    ),
    ProblemKind(
        severity="warning",
        name="outcomes_late",
        meaning="Outcomes that came too late for the lookback.",
        commands=("leadloop backfill",),
    ),
    ProblemKind(
        severity="warning",
        name="lead_slow",
        meaning="More than a hundredth of five urgent leads or more took longer.",
        commands=_STATUS,
    ),
    ProblemKind(
        severity="warning",
        name="opt_out_slow",
        meaning="More than a hundredth of five opt-outs or more took longer.",
        commands=_STATUS,
    ),
    ProblemKind(
        severity="warning",
        name="outcome_slow",
        meaning="More than a hundredth of five outcomes or more took longer.",
        commands=_STATUS,
    ),
    ProblemKind(
        severity="warning",
        name="run_failed",
        meaning="The last run of a flow failed or crashed, and no later run has done its work.",
        commands=_DOCTOR,
    ),
    ProblemKind(
        severity="warning",
        name="run_too_long",
        meaning="Runs that have not ended.",
        commands=_DOCTOR,
    ),
    ProblemKind(
        severity="warning",
        name="nothing_runs",
        meaning="No run has ended recently; or there was no run yet, and leads or opt-outs wait.",
        commands=("leadloop doctor", "leadloop sync"),
    ),
    ProblemKind(
        severity="critical",
        name="campaign_unknown",
        meaning="Leads or opt-outs wait in a campaign without a row in `campaigns`. It replaces"
        " that campaign's other problems.",
        commands=_DOCTOR,
    ),
)
