"""Phone numbers that opted out, as they are known without being kept."""

import hashlib
import hmac

#: Why a lead is cancelled whose own id nobody has opted out.
NUMBER_OPTED_OUT_REASON = "its phone number has opted out under another lead"


def hash_phone_number(secret: bytes, e164: str) -> bytes:
    """What a number in E.164 is suppressed under."""
    return hmac.new(secret, e164.encode(), hashlib.sha256).digest()
