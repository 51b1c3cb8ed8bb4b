"""A lead of somebody forgotten that is inserted once more stays without personal data.

Upstream, a file or a source may still have the person whose lead was never here: known only from
what the vendor told.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NOTE_OPTED_OUT_LEADS = """
CREATE OR REPLACE FUNCTION leadloop.note_opted_out_leads() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE leadloop.leads AS lead SET opted_out = true
      FROM inserted JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE lead.campaign_id = d.campaign_id AND lead.lead_id = d.lead_id;
    UPDATE leadloop.leads AS lead
       SET phone_number = NULL, contact_name = NULL, state_code = NULL, ebr_datetime = NULL,
           custom_fields = '{}'
      FROM inserted JOIN leadloop.forgotten USING (campaign_id, lead_id)
     WHERE lead.campaign_id = forgotten.campaign_id AND lead.lead_id = forgotten.lead_id;
    -- Whom the vendor has called, it has: else their opt-out would be settled without a word to it.
    UPDATE leadloop.leads AS lead
       SET status = 'created', sent_at = clock_timestamp(), confirmed_at = clock_timestamp()
      FROM inserted JOIN leadloop.forgotten USING (campaign_id, lead_id)
     WHERE lead.campaign_id = forgotten.campaign_id AND lead.lead_id = forgotten.lead_id
       AND (EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                     WHERE outcome.campaign_id = lead.campaign_id
                       AND outcome.lead_id = lead.lead_id)
            OR EXISTS (SELECT FROM leadloop.outreach_attempts AS attempt
                        WHERE attempt.campaign_id = lead.campaign_id
                          AND attempt.lead_id = lead.lead_id));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION leadloop.note_opted_out_leads() IS
    'Writes an opt-out that came before its lead on the lead; empties a lead that is forgotten.';
"""


def upgrade() -> None:
    """Replace the function; its trigger stays."""
    op.get_bind().exec_driver_sql(NOTE_OPTED_OUT_LEADS)
