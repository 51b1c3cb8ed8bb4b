"""The shapes of requests and answers, as JSON Schema."""

from typing import Any

from leadloop.sandbox.rules import REQUIRED

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> dict[str, Schema]:
    """Every named schema of the description."""
    return {
        "LeadId": _lead_id(),
        "Timestamp": _timestamp(),
        "Cost": _cost(),
        "Lead": _lead(),
        "NamedLead": _object(("lead_id",), lead_id=ref("LeadId")),
        "Created": _object(("created", "errors"), created=_COUNT, errors=_list(ref("Refusal"))),
        "Disabled": _object(("disabled", "errors"), disabled=_COUNT, errors=_list(ref("Refusal"))),
        "Refusal": _refusal(),
        "Error": _object(("detail",), detail=_TEXT, errors=_list(ref("Refusal"))),
        "Page": _page(),
        "Result": _result(),
        "CallAttempt": _attempt(),
        "Gmail": _gmail(),
        "Sms": _sms(),
        "Ivr": _ivr(),
        "PasswordGrant": _grant("password", "username", "password"),
        "RefreshGrant": _grant("refresh_token", "refresh_token"),
        "Revocation": _object(
            ("client_id", "client_secret", "token"),
            client_id=_TEXT,
            client_secret=_TEXT,
            token=_TEXT,
        ),
        "Tokens": _tokens(),
        "OAuthError": _object(("error",), error=_TEXT),
    }


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_LINK: Schema = {"type": ["string", "null"]}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _lead_id() -> Schema:
    return {
        "type": ["string", "integer"],
        "description": "The caller's own identifier, compared as text: 1 and '1' are the same.",
    }


def _timestamp() -> Schema:
    return {
        "type": ["integer", "string"],
        "description": "Epoch milliseconds; by rule epoch seconds or ISO 8601 with an offset.",
    }


def _cost() -> Schema:
    return {
        "type": ["number", "string"],
        "description": "A number, or the text PENDING OR NOT AVAILABLE.",
    }


def _lead() -> Schema:
    lead = _object(
        REQUIRED,
        lead_id=ref("LeadId"),
        phone_number={"type": ["string", "integer"]},
        contact_name=_TEXT,
        state_code={"type": "string", "pattern": "^[A-Za-z]{2}$"},
        ebr_datetime={"type": ["string", "number", "null"]},
    )
    any_other = "Any other key is a custom field of the campaign."
    return {**lead, "additionalProperties": True, "description": any_other}


def _refusal() -> Schema:
    return _object(
        ("index", "lead_id", "reason"),
        index=_COUNT,
        lead_id={"type": ["string", "null"]},
        reason=_TEXT,
    )


def _page() -> Schema:
    page = _object(
        ("count", "next", "previous", "results"),
        count=_COUNT,
        next=_LINK,
        previous=_LINK,
        results=_list(ref("Result")),
    )
    trap = (
        "By default `next` and `previous` are as in the vendor's sample: plain http, the vendor's"
        " host, and without the filters of the request. Page by number instead. `count` is that of"
        " the query, or by rule of the page alone."
    )
    return {**page, "description": trap}


def _result() -> Schema:
    row = _object(
        (
            "lead_id",
            "phone_number",
            "contact_name",
            "created_at",
            "campaign_id",
            "campaign_name",
            "country_code",
            "state_code",
            "call_attempt_keys",
            "last_call_attempt_keys",
            "total_cost",
        ),
        lead_id=ref("LeadId"),
        phone_number=_TEXT,
        contact_number=_TEXT,
        contact_name=_TEXT,
        created_at=ref("Timestamp"),
        campaign_id=_TEXT,
        campaign_name=_TEXT,
        country_code=_TEXT,
        state_code=_TEXT,
        call_attempt_keys=_list(_TEXT),
        last_call_attempt_keys=_list(_TEXT),
        total_cost=ref("Cost"),
        processed_at=ref("Timestamp"),
        outcome_name={"type": ["string", "null"]},
        outcome_id={"type": ["string", "integer", "null"]},
    )
    row["patternProperties"] = {
        "^call_attempt_.+_1$": _list(ref("CallAttempt")),
        "^last_call_attempt_.+_1$": ref("CallAttempt"),
    }
    row["additionalProperties"] = True
    row["description"] = (
        "Fixed keys, the custom fields of the lead, and once it is processed processed_at,"
        " outcome_name, outcome_id and one key per outreach block: call_attempt_{campaign_name}_1"
        " (a list), last_call_attempt_{campaign_name}_1 (an object), gmail_{block} (Gmail),"
        " sms_{block} (Sms), ivr_{block} (Ivr)."
    )
    return row


def _attempt() -> Schema:
    attempt = _object(
        ("reference_id",),
        reference_id=_TEXT,
        outcome_id={"type": ["string", "integer", "null"]},
        outcome_name={"type": ["string", "null"]},
        call_duration={"type": ["number", "null"]},
        called_at=ref("Timestamp"),
        report_keys_order=_list(_TEXT),
        status=_TEXT,
    )
    answers = "The script's own answers stand under the keys that report_keys_order lists."
    return {**attempt, "additionalProperties": True, "description": answers}


def _gmail() -> Schema:
    texts = dict.fromkeys(("google_email", "subject", "to", "from"), _TEXT)
    return _object((), cost=ref("Cost"), sent_at=ref("Timestamp"), **texts)


def _sms() -> Schema:
    return _object((), status=_TEXT, cost=ref("Cost"), body=_TEXT, sent_at=ref("Timestamp"))


def _ivr() -> Schema:
    return _object(
        (),
        status=_TEXT,
        cost=ref("Cost"),
        text_to_speak=_TEXT,
        multi_text_to_speak={"type": ["array", "null"]},
        dtmf_response={"type": ["string", "null"]},
        duration={"type": ["number", "null"]},
        sent_at=ref("Timestamp"),
    )


def _grant(kind: str, *own: str) -> Schema:
    names = ("client_id", "client_secret", *own)
    fields = dict.fromkeys(names, _TEXT)
    return _object(("grant_type", *names), grant_type={"const": kind}, **fields)


def _tokens() -> Schema:
    names = ("access_token", "refresh_token", "token_type", "scope")
    fields = dict.fromkeys(names, _TEXT)
    return _object((*names, "expires_in"), expires_in=_COUNT, **fields)
