"""First contact: a few consenting people, step by step, to learn what the vendor does not document.

Each step is announced, and taken only if a person agrees. Creates and opt-outs go through the jobs
of push and disable, so each of their promises holds, and a later run handles whatever state a stop
leaves behind. What was learned is in Postgres, and a second contact goes on from there.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from db import campaigns, in_doubt, leads, learned_answers, opt_outs, runs
from db.database import Connection, Database
from db.leads import KnownLead
from leadloop.client.api import LeadsApi, LookupResult
from leadloop.client.errors import ApiError, Fatal, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from leadloop.core.first_contact import (
    OutlineRedaction,
    describe_id_type,
    describe_time_format,
    outline_response,
    wants_numeric_id,
)
from leadloop.core.leads import Lead, extract_custom_texts, omit_phone_number, write_lead_id
from leadloop.core.plurals import format_count
from leadloop.core.redaction import keep_plain_words, redact_personal_data
from leadloop.core.results import is_unprocessed
from leadloop.core.summaries import report_summary
from leadloop.core.verdicts import ApiCall, ApiResponse
from leadloop.settings import Settings
from tasks.context import ApiContext, RunHost, open_api_context
from tasks.disable import DISABLE
from tasks.jobs import JobRunner, JobSpec
from tasks.push import PUSH, start_named_push
from tasks.repeated_create import RepeatedCreateJob
from tasks.window_trial import ProcessedLead, describe_bounds, find_processed, find_units

LOGGER = logging.getLogger("leadloop.first_contact")
#: The most people of a first contact.
MAX_LEADS = 3
_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0)


class Dialogue(Protocol):
    """How a first contact talks to the person who runs it."""

    def ask(self, announcement: str) -> bool:
        """Announce a step; return whether the person agrees to it."""

    def report(self, line: str) -> None:
        """Report what a step has found."""


class FirstContact:
    """The first contact of one campaign.

    Args:
        settings: the database, the vendor's API, the campaigns' defaults.
        database: where the campaign is.
        campaign_id: the campaign.
        lead_ids: the people: one to three leads that are new, or that an earlier contact has sent.
        dialogue: asks before each step, and reports.
        repeats_id: also send the first lead again once it is created.

    Raises:
        UsageError: a lead or the campaign is unknown, a lead is neither new nor sent, there are
            too many, or the login is incomplete. Nothing was sent.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        campaign_id: str,
        lead_ids: Sequence[str],
        dialogue: Dialogue,
        *,
        repeats_id: bool = False,
    ) -> None:
        settings.require_login()
        self._settings = settings
        self._database = database
        self._campaign_id = campaign_id
        self._lead_ids = list(dict.fromkeys(lead_ids))
        self._dialogue = dialogue
        self._repeats_id = repeats_id
        self._host = RunHost(log=LOGGER)
        self._responses: dict[str, ApiResponse] = {}
        self._personal_values: list[str] = []
        self._note_personal_values()
        # What a killed contact was sending is in doubt, and can be gone on with.
        runs.recover_dead_runs(database, LOGGER.warning)
        self._require_leads()

    def run(self) -> None:
        """Take the steps that are left, each if the person agrees.

        Raises:
            RunError: a step failed; the message names the state, and the next command.
        """
        try:
            self._report_backlog()
            with open_api_context(self._settings, self._host) as opened:
                context = opened.for_campaign(self._load_campaign())
                context.session.transport.on_response = self._record_response
                for step in (
                    self._read_campaign,
                    self._create_nothing,
                    self._create_first,
                    self._find_unprocessed,
                    self._create_incomplete,
                    self._create_others,
                    self._repeat_first,
                    self._read_processed,
                    self._disable_last,
                ):
                    step(context)
        finally:
            report_summary(self.summarize())

    def summarize(self) -> dict[str, Any]:
        """Return the statuses of the leads, and what was learned, now and earlier."""
        statuses = {key: lead.status for key, lead in self._load_leads().items()}
        return {
            "campaign_id": self._campaign_id,
            "leads": statuses,
            "learned": dict(self._load_answers()),
        }

    # What stands in Postgres.

    def _load_campaign(self) -> Campaign:
        def select(connection: Connection) -> Campaign:
            rules = self._settings.campaign_rules()
            (campaign,) = campaigns.select_campaigns(connection, [self._campaign_id], rules)
            return campaign

        return self._database.retry(select)

    def _load_leads(self) -> dict[str, KnownLead]:
        known = self._database.retry(
            lambda c: leads.list_known(c, [self._campaign_id], self._lead_ids)
        )
        by_id = {lead.lead_id: lead for lead in known}
        return {lead_id: by_id[lead_id] for lead_id in self._lead_ids if lead_id in by_id}

    def _load_answers(self) -> Mapping[str, str]:
        return self._database.retry(lambda c: learned_answers.get_answers(c, self._campaign_id))

    def _get_lead(self, lead_id: str) -> KnownLead:
        """Return a lead of the contact.

        Raises:
            RunError: its row was deleted meanwhile.
        """
        lead = self._load_leads().get(lead_id)
        if lead is None or lead.status is None:
            raise RunError(
                f"the row of lead {lead_id} was deleted meanwhile; what was sent of it is"
                " remembered: insert the row again, and run the same command again to go on"
            )
        return lead

    def _list_ids(self, status: str) -> list[str]:
        """List the contact's leads of a status that have not opted out."""
        return [
            key
            for key, lead in self._load_leads().items()
            if lead.status == status and not lead.opted_out and lead.opt_out_status is None
        ]

    def _require_leads(self) -> None:
        self._settings.get_account(self._load_campaign().account).require_login()
        if not 1 <= len(self._lead_ids) <= MAX_LEADS:
            raise UsageError(f"a first contact is with 1 to {MAX_LEADS} leads: --lead-id")
        known = self._load_leads()
        have_row = {key for key, lead in known.items() if lead.status is not None}
        if unknown := [key for key in self._lead_ids if key not in have_row]:
            raise UsageError(
                f"campaign {self._campaign_id} has no lead {', '.join(unknown)}: insert the team's"
                " own people into leadloop.leads, or `leadloop load` them"
            )
        for lead in known.values():
            opted_out = lead.opted_out or lead.opt_out_status is not None
            if lead.status not in ("new", "created", "in_doubt") or (
                opted_out and lead.status != "created"
            ):
                why = "has opted out" if opted_out else f"is {lead.status}"
                raise UsageError(
                    f"lead {lead.lead_id} {why}, and a first contact needs leads that are new, or"
                    " that it has sent: name another one; a rejected one is new again after"
                    f" `leadloop requeue --rejected --campaign {self._campaign_id} --lead-id"
                    f" {lead.lead_id}`"
                )

    def _report_backlog(self) -> None:
        """Warn if a push by schedule would send the campaign's other leads meanwhile."""
        fresh = self._database.retry(lambda c: leads.count_fresh(c, self._campaign_id))
        others = fresh - len(self._list_ids("new"))
        if others > 0 and self._load_campaign().enabled:
            named = format_count(others, "other lead is", "other leads are")
            self._dialogue.report(
                f"the campaign is enabled, and {named} new: a scheduled or live push sends at any"
                " time. To prevent that, set `enabled` of the campaign to false in"
                " leadloop.campaigns before you go on; this command works all the same"
            )

    def _note_personal_values(self) -> None:
        """Add the values that the leads have now to those that answers are redacted by."""
        people = self._database.retry(
            lambda c: leads.list_personal_fields(c, self._campaign_id, self._lead_ids)
        )
        values = [value for lead in people for value in _list_values(lead)]
        self._personal_values = list(dict.fromkeys([*self._personal_values, *values]))

    # What the vendor answers.

    def _record_response(self, path: str, response: ApiResponse) -> None:
        """Keep the last response of each call; it holds personal data, and is not stored."""
        for call in ("create", "disable", "responses"):
            if f"/leads/{call}/" in path:
                self._responses[call] = response

    def _outline(self, call: str) -> str | None:
        """Describe the last response of a call since the step began; None: nothing was sent."""
        response = self._responses.get(call)
        # A correction, or a sync of the source, may have changed what was sent.
        self._note_personal_values()
        hide = partial(_redact, values=self._personal_values)
        # A list of opt-outs may name others, whose personal data is not known here.
        hide_text = hide if call == "create" else _hide_unknown
        redaction = OutlineRedaction(hide_text=hide_text, hide_key=hide)
        return None if response is None else outline_response(response, redaction)

    def _store_answer(self, question: str, answer: str) -> None:
        self._database.retry(
            lambda c: learned_answers.record_answer(c, self._campaign_id, question, answer)
        )

    def _learn(self, question: str, answer: str) -> None:
        self._store_answer(question, answer)
        self._dialogue.report(f"learned: {question}: {answer}")

    def _agrees(self, announcement: str) -> bool:
        self._responses.clear()
        return self._dialogue.ask(announcement)

    def _run_job(self, spec: JobSpec[ApiContext]) -> None:
        """Run a job of the campaign, as a flow would.

        Raises:
            RunError: it failed; what it did is stored.
        """
        with spec.open_context(self._settings, self._host) as context:
            session = context.for_campaign(self._load_campaign()).session
            session.transport.on_response = self._record_response
            JobRunner(context, spec, [self._campaign_id]).run()

    # The steps.

    def _read_campaign(self, context: ApiContext) -> None:
        if not self._agrees(
            "Read the campaign at the vendor: one request, after a login if one is set. It changes"
            " nothing. Learns whether login, address and campaign id are right."
        ):
            return
        try:
            page = context.api.list_all(self._campaign_id, page=1, page_size=1)
        except ApiError as error:
            raise RunError(
                f"the campaign cannot be read at {context.account.address} ({error}); no lead was"
                " sent: `leadloop doctor` checks the login and the address"
            ) from None
        self._dialogue.report(
            f"the vendor lists {format_count(page.count, 'lead')} of the campaign"
        )

    def _create_nothing(self, context: ApiContext) -> None:
        if "empty_create" in self._load_answers() or not self._agrees(
            "Send a create with an empty list. Nobody is created. Learns what the vendor answers to"
            " a create that it refuses."
        ):
            return
        try:
            context.api.ensure_token()
            context.limiter.wait_for_permit(ApiCall.CREATE)
            context.api.create(self._campaign_id, [])
        except (Fatal, Retryable) as error:
            raise RunError(
                f"an empty create failed at {context.account.address} ({error}); no lead was sent:"
                " `leadloop doctor` checks the login and the address"
            ) from None
        except ApiError:
            pass  # the outline has what it answered
        self._learn("empty_create", self._outline("create") or "not sent")

    def _create_first(self, _: ApiContext) -> None:
        """Create the first lead, unless any lead of the contact was sent already."""
        new = self._list_ids("new")
        if len(new) == len(self._lead_ids):
            self._create(new[:1])

    def _create_incomplete(self, context: ApiContext) -> None:
        """Have the vendor refuse the last lead, which lacks its phone number; make it new again.

        Only if a lookup does not show the lead afterwards; otherwise it is created. If the vendor
        takes it, it cannot call it.
        """
        new = self._list_ids("new")
        if "lead_refusal" in self._load_answers() or not (new and self._may_create_more()):
            return
        lead_id = new[-1]
        if not self._agrees(
            f"Create {lead_id} without its phone number; its custom fields are sent. The vendor"
            " should refuse it, and it is new again then. If the vendor takes it, it cannot call"
            " this person, unless a custom field has the number. Learns how a lead is refused."
        ):
            return
        self._push([lead_id], alter=omit_phone_number)
        status = self._get_lead(lead_id).status
        self._learn("lead_refusal", f"{self._outline('create')}; the lead is {status}")
        if status != "rejected":
            return
        lookup = self._look_up_until(
            context,
            lead_id,
            read_boot_clock(),
            advice="it is rejected: if `leadloop audit` does not list it, `leadloop requeue"
            f" --rejected --campaign {self._campaign_id} --lead-id {lead_id}` makes it new again",
        )
        if lookup.result is None:
            self._database.retry(partial(self._requeue, [lead_id]))
        else:
            self._database.retry(lambda c: leads.confirm_shown(c, self._campaign_id, [lead_id]))
            self._dialogue.report(
                f"the vendor shows {lead_id} although it refused it: the lead is created"
            )

    def _may_create_more(self) -> bool:
        """Return whether the vendor has a lead of this contact, and no lead is in doubt."""
        return bool(self._list_ids("created")) and not self._list_ids("in_doubt")

    def _create_others(self, _: ApiContext) -> None:
        """Create the other leads, once the vendor has the first one."""
        new = self._list_ids("new")
        if new and self._may_create_more():
            self._create(new)

    def _create(self, lead_ids: Sequence[str]) -> None:
        """Create leads in one request, as a push does.

        Raises:
            RunError: a lead was not sent.
        """
        named = ", ".join(lead_ids)
        if not self._agrees(
            f"Create {named} in one request, as a push would. From then on the vendor may call"
            " these people. Learns what the vendor answers to a create that it accepts."
        ):
            return
        self._push(lead_ids)
        self._learn_from_create(lead_ids)
        if self._needs_numbers(lead_ids) and self._agrees(
            f"The vendor refused {named}, and seems to want lead ids as JSON numbers. Set"
            " numeric_lead_ids of the campaign, and create the leads again. Ids that are no whole"
            " numbers cannot be sent in this campaign then."
        ):
            self._database.retry(partial(self._switch_to_numbers, lead_ids))
            self._push(lead_ids)
            self._learn_from_create(lead_ids)
            if self._list_statuses(lead_ids) == {"rejected"}:
                self._database.retry(partial(self._set_numbers, numeric=False))
                self._dialogue.report("numbers are refused too: numeric_lead_ids is not set")

    def _push(self, lead_ids: Sequence[str], **how: Any) -> None:
        """Push leads in a separate run.

        Raises:
            RunError: not all of them were sent.
        """
        start = partial(start_named_push, lead_ids=lead_ids, **how)
        self._run_job(replace(PUSH, start=start, find_due=None))
        outline, statuses = self._outline("create"), self._list_statuses(lead_ids)
        if outline is None or statuses & {"new", "cancelled"}:
            raise RunError(
                f"not all of {', '.join(lead_ids)} were sent ({outline or 'no request'}): the"
                " campaign may be paused or held, a check of ours or an opt-out may stand against"
                f" it: `leadloop status --campaign {self._campaign_id}` shows which"
            )

    def _list_statuses(self, lead_ids: Sequence[str]) -> set[str | None]:
        return {self._get_lead(lead_id).status for lead_id in lead_ids}

    def _learn_from_create(self, lead_ids: Sequence[str]) -> None:
        outline, statuses = self._outline("create") or "", self._list_statuses(lead_ids)
        if statuses == {"created"}:
            self._learn("create_success", outline)
            numeric = self._load_campaign().numeric_lead_ids
            self._learn("lead_id_sent", f"accepted as {'a number' if numeric else 'text'}")
        elif "rejected" in statuses:
            self._learn("create_refusal", outline)
        else:
            self._learn("create_unclear", f"{outline}; the leads are in doubt")

    def _needs_numbers(self, lead_ids: Sequence[str]) -> bool:
        """Return whether the vendor refused all leads because their ids are text."""
        return (
            "create" in self._responses
            and self._list_statuses(lead_ids) == {"rejected"}
            and not self._load_campaign().numeric_lead_ids
            and all(isinstance(write_lead_id(key, as_number=True), int) for key in lead_ids)
            and wants_numeric_id(self._responses["create"].body)
        )

    def _switch_to_numbers(self, lead_ids: Sequence[str], connection: Connection) -> None:
        self._set_numbers(connection, numeric=True)
        self._requeue(lead_ids, connection)

    def _set_numbers(self, connection: Connection, *, numeric: bool) -> None:
        campaigns.set_numeric_lead_ids(connection, self._campaign_id, numeric=numeric)

    def _requeue(self, lead_ids: Sequence[str], connection: Connection) -> None:
        leads.requeue_leads(
            connection,
            campaign_ids=[self._campaign_id],
            status="rejected",
            lead_ids=lead_ids,
        )

    def _find_unprocessed(self, context: ApiContext) -> None:
        """Look the first sent lead up until the vendor shows it, for the settle time."""
        in_doubt_ids = self._list_ids("in_doubt")
        sent = in_doubt_ids or self._list_ids("created")
        if not sent or ("unprocessed_lead" in self._load_answers() and not in_doubt_ids):
            return
        settle_s = self._load_campaign().settle_s
        if not self._agrees(
            f"Look {sent[0]} up until the vendor shows it: one request at a time, for up to"
            f" {settle_s} s. It changes nothing. Learns whether the vendor shows a lead that is"
            " created and not processed, and how soon."
        ):
            return
        began = read_boot_clock()
        lookup = self._look_up_until(context, sent[0], began + settle_s)
        self._learn_visibility(sent[0], lookup, read_boot_clock() - began)

    def _look_up_until(
        self,
        context: ApiContext,
        lead_id: str,
        end: float,
        *,
        advice: str = "its status is in leadloop.leads: run the same command again to go on",
    ) -> LookupResult:
        """Look a lead up until it is shown or the time has come; return the last result.

        Raises:
            RunError: the vendor refuses lookups, or does not answer them; it ends with `advice`.
        """
        pauses = iter(_PAUSES_S)
        pause_s = 0.0
        while True:
            pause_s = next(pauses, pause_s)
            context.limiter.sleep(pause_s)
            try:
                lookup = context.api.look_up(self._campaign_id, lead_id)
            except ApiError as error:
                raise RunError(f"lead {lead_id} cannot be looked up ({error}); {advice}") from None
            if lookup.result is not None or read_boot_clock() >= end:
                return lookup

    def _learn_visibility(self, lead_id: str, lookup: LookupResult, took_s: float) -> None:
        """Learn from the last lookup of a sent lead, which is created if it was found."""
        result = lookup.result
        if result is not None:
            self._database.retry(
                lambda c: in_doubt.confirm_created(c, self._campaign_id, [lead_id])
            )
            self._learn("lead_id_shown", f"as {describe_id_type(result)}")
            self._learn("times_shown", describe_time_format(result.get("created_at")))
        if result is not None and not is_unprocessed(result):
            self._dialogue.report(f"lead {lead_id} was processed before it was looked up")
        elif result is not None and lead_id in self._list_ids("created"):
            self._record_visibility(shows=True)
            self._learn("unprocessed_lead", f"shown, {took_s:.1f} s after the first lookup")
        elif result is not None:
            # The vendor may show a lead because it is disabled.
            self._dialogue.report(f"lead {lead_id} has opted out meanwhile")
        elif lead_id in self._list_ids("in_doubt"):
            self._dialogue.report(
                f"lead {lead_id} is not shown and stays in doubt: the vendor may have it. Name"
                " another lead to go on; pushes look this one up"
            )
        elif lookup.absent:
            self._record_visibility(shows=False)
            self._learn("unprocessed_lead", f"not shown within {took_s:.0f} s")
        else:
            self._learn("unprocessed_lead", "lookups prove nothing: a 404, or rows of other leads")

    def _record_visibility(self, *, shows: bool) -> None:
        self._database.retry(
            lambda c: campaigns.record_visibility(c, self._campaign_id, shows=shows)
        )

    def _repeat_first(self, context: ApiContext) -> None:
        """Send a created lead once more, if the person asked for exactly that.

        That it is sent is stored before, so that no stop makes a later run send it a third time.
        """
        created = self._list_ids("created")
        if not self._repeats_id or not created or "repeated_id" in self._load_answers():
            return
        if not self._agrees(
            f"Create {created[0]} AGAIN: the vendor may refuse it, update the lead, or make a"
            " second lead of it and CALL THE SAME PERSON TWICE. Learns which."
        ):
            return
        note = partial(self._store_answer, "repeated_id", "sent; its answer is not known")
        start = partial(RepeatedCreateJob, lead_id=created[0], before_send=note)
        self._run_job(replace(PUSH, start=start, find_due=None))
        answer = self._outline("create") or "not sent"
        try:
            rows = context.api.list_all(self._campaign_id, page=1, page_size=10, lead_id=created[0])
        except ApiError as error:
            self._learn("repeated_id", f"{answer}; the lead's rows cannot be read: {error}")
        else:
            self._learn("repeated_id", f"{answer}; rows of this id shown afterwards: {rows.count}")

    def _read_processed(self, context: ApiContext) -> None:
        """Learn unit and bounds of a window from a lead that has an outcome."""
        sent = self._list_ids("created")
        if "bounds" in self._load_answers() or not sent:
            return
        if not self._agrees(
            f"Look for an outcome: {format_count(len(sent), 'lookup')} and a page of the listing,"
            " then up to 4 reads of a window. It changes nothing. Learns the unit of times, and"
            " whether bounds are inclusive."
        ):
            return
        try:
            processed = find_processed(context.api, self._campaign_id, sent)
            if processed is None:
                self._dialogue.report(
                    "no lead has an outcome yet, so unit and bounds are not known: run the same"
                    " command again when one of these people was called"
                )
            else:
                self._learn_window(context.api, processed)
        except ApiError as error:
            raise RunError(
                f"outcomes cannot be read ({error}); nothing was changed: run the same command"
                " again to go on"
            ) from None

    def _learn_window(self, api: LeadsApi, lead: ProcessedLead) -> None:
        self._learn("times_shown", lead.time_format)
        campaign = self._load_campaign()
        units = find_units(api, campaign, lead)
        if len(units) != 1:
            found = "both" if units else "none"
            self._learn("window_unit", f"not known: of ms and s, {found} shows the outcome")
            return
        (unit,) = units
        self._learn("window_unit", unit)
        self._learn("bounds", describe_bounds(api, self._campaign_id, lead, unit))
        if unit != campaign.epoch_unit and self._agrees(
            f"Set epoch_unit of the campaign to {unit}: with {campaign.epoch_unit}, no poll reads"
            " an outcome."
        ):
            self._database.retry(lambda c: campaigns.set_epoch_unit(c, self._campaign_id, unit))

    def _disable_last(self, _: ApiContext) -> None:
        """Opt the last lead out, and disable it as a disable run does.

        If a created lead has opted out, in a contact that was stopped, it is disabled instead.
        """
        answers = self._load_answers()
        if "disable" in answers:
            return
        if opted_out := self._list_opted_out():
            if self._agrees(
                f"Send the opt-out of {opted_out[-1]}, which exists already, to the vendor. Nobody"
                " else is opted out. Learns what the vendor answers to a disable."
            ):
                self._disable(opted_out[-1])
            return
        created = self._list_ids("created")
        if not created:
            return
        if len(self._lead_ids) == 1 and "window_unit" not in answers:
            self._dialogue.report(
                f"{created[-1]} is not disabled before it has an outcome: it is the only lead"
            )
            return
        if self._agrees(
            f"Opt {created[-1]} out and disable it at the vendor, which cannot enable it again. Its"
            " phone number is suppressed in all campaigns from then on. Learns what the vendor"
            " answers to a disable."
        ):
            self._database.retry(
                lambda c: opt_outs.request_opt_outs(c, self._campaign_id, created[-1:])
            )
            self._disable(created[-1])

    def _list_opted_out(self) -> list[str]:
        """List the contact's created leads that have an opt-out."""
        return [
            key
            for key, lead in self._load_leads().items()
            if lead.status == "created" and lead.opt_out_status is not None
        ]

    def _disable(self, lead_id: str) -> None:
        self._run_job(DISABLE)
        answer = self._outline("disable") or "no answer in this contact"
        self._learn("disable", f"{answer}; the opt-out is {self._get_lead(lead_id).opt_out_status}")


def _list_values(lead: Lead) -> list[str]:
    """Return the personal data of a lead: number, name and its parts, texts of custom fields."""
    name = lead.contact_name or ""
    custom = extract_custom_texts(lead.custom_fields)
    return [
        value for value in (lead.phone_number or "", name, *name.split(), *custom) if len(value) > 1
    ]


def _redact(text: str, *, values: Sequence[str]) -> str:
    return redact_personal_data(text, *values)


def _hide_unknown(text: str) -> str:
    """Redact a text about people who are not known here, as reasons of opt-outs are."""
    return keep_plain_words(redact_personal_data(text))
