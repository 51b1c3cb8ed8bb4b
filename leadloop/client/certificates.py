"""The CA bundle from the environment, which verifies the vendor's server."""

import os
import ssl
from pathlib import Path

from leadloop.core.errors import RunError

#: The variables that requests reads; the first one that is set takes effect.
_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def check_ca_bundle(url: str) -> None:
    """Check that the CA bundle for a URL can be read, before any request is sent.

    Raises:
        RunError: the bundle is missing, cannot be read, or holds no certificate in PEM.
    """
    name = next((name for name in _VARIABLES if os.environ.get(name)), None)
    if name is None or not url.lower().startswith("https:"):
        return
    path = Path(os.environ[name])
    if path.is_dir():
        # OpenSSL looks each certificate up in a directory by name, when it is needed.
        return
    try:
        ssl.create_default_context().load_verify_locations(cafile=path)
        return
    except ssl.SSLError:
        problem = "names a file without certificates in PEM"
    except FileNotFoundError:
        problem = "names no file"
    except OSError as error:
        problem = f"names a file that cannot be read, {error.strerror}"
    raise RunError(
        f"{name} {problem} ({os.environ[name]!r}): name a file of certificates in PEM, or unset"
        " it; nothing was sent"
    )
