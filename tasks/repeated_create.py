"""The repeated create of a lead that the vendor has, which a person has asked for."""

from collections.abc import Callable

from leadloop.client.errors import ApiError
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall
from tasks.batch_claimer import BatchClaimer, ClaimedBatch
from tasks.context import ApiContext, CampaignRun
from tasks.jobs import DONE, ChunkResult
from tasks.lead_quota import LeadQuota
from tasks.opt_out_sync import may_send

_MAX_CLAIMS = 5


class RepeatedCreateJob:
    """Sends one `created` lead once more. It is `sending` meanwhile, and `created` afterwards.

    If the process dies in between, the lead is in doubt, and lookups find it.

    Args:
        run: the campaign's run.
        lead_id: the lead.
        before_send: is called right before the request leaves; if it fails, nothing is sent.
    """

    def __init__(
        self, run: CampaignRun[ApiContext], *, lead_id: str, before_send: Callable[[], None]
    ) -> None:
        self.run = run
        self._lead_id = lead_id
        self._before_send = before_send
        self._claimer = BatchClaimer(run, 1, quota=LeadQuota(left=1))

    def run_chunk(self, limit: int) -> ChunkResult:
        """Send the lead. A response that is an error is no failure of the run.

        Raises:
            RunError: the lead must not be sent now, and was not.
        """
        self.run.context.api.ensure_token()
        batch = self._claim_lead()
        try:
            self._before_send()
            self.run.context.api.create(self.run.campaign.campaign_id, batch.leads)
        except ApiError as error:
            self.run.warn("the repeated create: %s", error)
        finally:
            self._claimer.restore_created(self._claimer.claim_ref(batch))
        return DONE

    def _claim_lead(self) -> ClaimedBatch:
        """Claim the lead with a permit; again if the permit has expired meanwhile.

        Raises:
            RunError: the lead must not be sent, each permit expired, or the campaign's opt-out
                source cannot be read. It was not sent.
        """
        for _ in range(_MAX_CLAIMS):
            permit = self.run.context.limiter.acquire_permit(ApiCall.CREATE)
            self.run.refresh()
            may_send(self.run)
            batch = self._claimer.claim_created(permit, self._lead_id)
            if batch.leads and not permit.is_expired:
                return batch
            self.run.context.limiter.release_slot(permit.slot)
            if not batch.leads:
                raise RunError(
                    f"lead {self._lead_id} was not sent again: it has opted out, its number has, it"
                    " is not `created` or too old, or the campaign may not create leads"
                )
            self._claimer.restore_created(self._claimer.claim_ref(batch))
        raise RunError(
            f"lead {self._lead_id} was not sent again: the database was so slow that {_MAX_CLAIMS}"
            " permits to send expired; run the same command again to go on"
        )

    def counts(self) -> dict[str, int]:
        """Return no counts: nothing was created that is not counted already."""
        return {}

    def finish(self) -> None:
        """Check nothing: the request was sent."""
