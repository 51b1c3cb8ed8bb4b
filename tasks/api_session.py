"""A session with the vendor's API: transport, login and rate limiter, as the settings say."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from db.database import Database
from db.login_lock import hold_login_lock
from leadloop.client.api import LeadsApi
from leadloop.client.auth import Credentials, OAuthPasswordGrant, StaticToken, TokenProvider
from leadloop.client.certificates import check_ca_bundle
from leadloop.client.proxies import check_proxy
from leadloop.client.retries import RequestRetries
from leadloop.client.transport import Timeouts, Transport
from leadloop.core.rate_ring import Purpose, RateLimit
from leadloop.settings import Settings
from tasks.rate_limiter import RateLimiter


@dataclass(frozen=True, kw_only=True)
class ApiSession:
    """The vendor's API, its transport and login, and the rate limiter that every request passes."""

    api: LeadsApi
    tokens: TokenProvider
    transport: Transport
    limiter: RateLimiter


@contextmanager
def open_api(
    settings: Settings,
    database: Database,
    warn: Callable[[str], None],
    *,
    purpose: Purpose = Purpose.BULK,
    is_paced: bool = False,
    tokens: TokenProvider | None = None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[ApiSession]:
    """Prepare everything that a request needs; send nothing yet.

    Args:
        settings: the API's address, login, rate and timeouts.
        database: holds the rate limiter's ring of slots.
        warn: is called when the vendor asks for a pause.
        purpose: decides which slots of the rate limiter the requests may use.
        is_paced: see `tasks.rate_limiter.RateLimiter`.
        tokens: the login of another session, to share it; None: a new one.
        on_wait: see `tasks.rate_limiter.RateLimiter`.

    Raises:
        UsageError: the login is incomplete.
        RunError: the environment names a CA bundle or a proxy that cannot be used.
    """
    settings.require_login()
    check_proxy(settings.api_url)
    check_ca_bundle(settings.api_url)
    requests, period_s = settings.parse_rate()
    limit = RateLimit(requests=requests, period_s=period_s)
    limiter = RateLimiter(
        database, limit, warn, purpose=purpose, is_paced=is_paced, on_wait=on_wait
    )
    limiter.resize_ring()
    connect_s, read_s = settings.parse_timeouts()
    transport = Transport(
        settings.api_url,
        Timeouts(connect_s=connect_s, read_s=read_s),
        connections=settings.max_concurrency,
    )
    try:
        retries = RequestRetries(sleep=limiter.sleep, on_pause=limiter.pause)
        if tokens is None:
            tokens = _make_token_provider(settings, transport, limiter, retries, database)
        api = LeadsApi(transport, tokens, limiter.wait_for_permit, retries)
        yield ApiSession(api=api, tokens=tokens, transport=transport, limiter=limiter)
    finally:
        transport.close()


def _make_token_provider(
    settings: Settings,
    transport: Transport,
    limiter: RateLimiter,
    retries: RequestRetries,
    database: Database,
) -> TokenProvider:
    if settings.api_token is not None:
        return StaticToken(settings.api_token.get_secret_value())
    secret, password = settings.client_secret, settings.password
    assert settings.client_id is not None, "require_login"
    assert secret is not None, "require_login"
    assert settings.username is not None, "require_login"
    assert password is not None, "require_login"
    return OAuthPasswordGrant(
        transport,
        Credentials(
            client_id=settings.client_id,
            client_secret=secret.get_secret_value(),
            username=settings.username,
            password=password.get_secret_value(),
        ),
        limiter.wait_for_permit,
        retries,
        partial(hold_login_lock, database, limiter.sleep),
    )
