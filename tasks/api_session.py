"""A session with the vendor's API: transport, login and rate limiter of one account."""

import math
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
from leadloop.settings import Account, Settings
from tasks.rate_limiter import PauseNotice, RateLimiter


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
    account: str,
    purpose: Purpose = Purpose.BULK,
    is_paced: bool = False,
    tokens: TokenProvider | None = None,
    on_wait: Callable[[str], None] = lambda _: None,
    pauses: PauseNotice | None = None,
    patience_s: float = math.inf,
) -> Iterator[ApiSession]:
    """Prepare everything that a request needs; send nothing yet.

    Args:
        settings: the account's address, login and rate; the timeouts.
        database: holds the rate limiter's ring of slots.
        warn: is called when the vendor asks for a pause.
        account: the name of the account.
        purpose: decides which slots of the rate limiter the requests may use.
        is_paced: see `tasks.rate_limiter.RateLimiter`.
        tokens: the login of another session, to share it; None: a new one.
        on_wait: see `tasks.rate_limiter.RateLimiter`.
        pauses: those of another session of the account, to share them; None: separate ones.
        patience_s: see `tasks.rate_limiter.RateLimiter`.

    Raises:
        UsageError: the login is incomplete.
        RunError: the environment names a CA bundle or a proxy that cannot be used.
    """
    login = settings.get_account(account)
    login.require_login()
    address = login.require_api_url()
    check_proxy(address)
    check_ca_bundle(address)
    requests, period_s = login.parse_rate()
    limiter = RateLimiter(
        database,
        RateLimit(requests=requests, period_s=period_s),
        warn,
        purpose=purpose,
        is_paced=is_paced,
        account=account,
        on_wait=on_wait,
        pauses=pauses,
        patience_s=patience_s,
    )
    limiter.resize_ring()
    connect_s, read_s = settings.parse_timeouts()
    transport = Transport(
        address,
        Timeouts(connect_s=connect_s, read_s=read_s),
        connections=settings.max_concurrency,
        setting_prefix=login.prefix,
    )
    try:
        retries = RequestRetries(sleep=limiter.sleep, on_pause=limiter.pause)
        if tokens is None:
            tokens = _make_token_provider(login, transport, limiter, retries, database)
        api = LeadsApi(transport, tokens, limiter.wait_for_permit, retries)
        yield ApiSession(api=api, tokens=tokens, transport=transport, limiter=limiter)
    finally:
        transport.close()


def _make_token_provider(
    account: Account,
    transport: Transport,
    limiter: RateLimiter,
    retries: RequestRetries,
    database: Database,
) -> TokenProvider:
    if account.api_token is not None:
        return StaticToken(account.api_token.get_secret_value())
    secret, password = account.client_secret, account.password
    assert account.client_id is not None, "require_login"
    assert secret is not None, "require_login"
    assert account.username is not None, "require_login"
    assert password is not None, "require_login"
    return OAuthPasswordGrant(
        transport,
        Credentials(
            client_id=account.client_id,
            client_secret=secret.get_secret_value(),
            username=account.username,
            password=password.get_secret_value(),
        ),
        limiter.wait_for_permit,
        retries,
        partial(hold_login_lock, database, limiter.sleep, account=account.name),
    )
