"""A stand-in of the vendor's Leads API, built from the vendor's document alone.

The sandbox shares no code with the rest of the project, so that a misreading of the vendor's API
document on one side is not repeated on the other.

- Serving: `server`, `asgi_app` (the path of a request through log, rate limit, faults, handler),
  `routes` (the vendor's endpoints), `admin_routes` (`/_sandbox/…`), `openapi.json`.
- Requests: `auth`, `rate_limiting`, `validation`, `request_log`, `faults` (statuses, TCP resets).
- Data: `store` (all campaigns), `campaign_leads` (filters and order), `outcomes` (drawn from a
  seed), `serialization` (JSON of a lead).
- Settings: `rules`; `state` holds the rules in force and the parts above.
"""

from leadloop.sandbox.faults import Fault
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.server import SandboxHandle, run_sandbox, serve_sandbox

__all__ = ["Fault", "Rules", "SandboxHandle", "run_sandbox", "serve_sandbox"]
