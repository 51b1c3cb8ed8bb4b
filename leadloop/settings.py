"""The settings: `LEADLOOP_…` in the environment, or in `.env` of the working directory.

Prefect blocks and run parameters override them in a deployment's run: see tasks/blocks.py.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from phonenumbers import SUPPORTED_REGIONS
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from leadloop.core.accounts import (
    ACCOUNT_PREFIX,
    ACCOUNT_SETTINGS,
    DEFAULT_ACCOUNT,
    PREFIX,
    build_prefix,
    build_variable,
    find_intended_variable,
    parse_variable,
)
from leadloop.core.addresses import hide_credentials, is_loopback
from leadloop.core.campaign_rules import CampaignRules
from leadloop.core.concurrency import MAX_CONCURRENCY, MIN_CONCURRENCY
from leadloop.core.errors import UsageError
from leadloop.core.header_values import is_header_value
from leadloop.core.misspellings import find_intended_setting
from leadloop.trusted_files import read_trusted

#: The value of `LEADLOOP_DATABASE_URL` for a Postgres that local commands start automatically.
EMBEDDED = "embedded"

_NO_HOST = re.compile(r"""[\s\x00-\x20\x7f\\%*<>"{}|^`]""")

#: The variables that hold a database URL, for messages.
DATABASE_URL = "LEADLOOP_DATABASE_URL"
SOURCE_URL = "LEADLOOP_SOURCE_URL"
MONITOR_DATABASE_URL = "LEADLOOP_MONITOR_DATABASE_URL"

_DOTENV = ".env"
_ENVIRONMENT = "the environment"
_DEFAULT_RATE = "100/60"
_A_DAY_S = 86_400
_A_MONTH_S = 30 * _A_DAY_S
_A_YEAR_S = 365 * _A_DAY_S
EMBEDDED_IS_LOCAL_ONLY = (
    f"`{EMBEDDED}` is for local commands, and a deployment's run works in a temporary directory:"
    " write postgresql://user@host:5432/database"
)
#: The two kinds of login: a token, and the parts of the OAuth password grant.
_LOGINS = (("api_token",), ("client_id", "client_secret", "username", "password"))
#: What makes a run one of another environment if a block sets it.
_REDIRECTING = frozenset({"database_url", "api_url", *chain(*_LOGINS)})
#: The prefix of values that Kubernetes adds for each service, such as LEADLOOP_PAGE_PORT.
_KUBERNETES_PREFIX = "tcp://"
#: The warnings that this process has issued: settings are loaded several times.
_WARNED: set[str] = set()


def _check_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            "write it as https://host, or https://host:port, port 1 to 65535"
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as https://host")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("write it as https://host, or https://host:port, port 1 to 65535")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("write it as https://host, with no login, query or fragment")
    if not _is_host(parts.hostname):
        raise ValueError(
            "write it as https://host, with a host's name in ASCII (xn--… for other letters)"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain http would send the token in the clear: use https")
    return text.rstrip("/")


def _is_host(name: str) -> bool:
    """Return whether a text can be a host's name or address, in ASCII and without brackets."""
    try:
        # Rejects labels that are empty or too long.
        name.encode("idna")
    except UnicodeError:
        return False
    return name.isascii() and _NO_HOST.search(name) is None


def _check_rate(text: str) -> str:
    """Check requests/seconds in plain digits: an exponent could make the ring of slots absurd."""
    form = re.fullmatch(r"(\d{1,7})/(\d{1,5}(?:\.\d{1,6})?)", text)
    if not form or not 1 <= int(form[1]) <= 1_000_000 or not 0 < float(form[2]) <= _A_DAY_S:
        raise ValueError(
            "write requests/seconds, as in 100/60: 1 to 1000000 requests, up to 86400 seconds"
        )
    return text


def _check_timeout(text: str) -> str:
    form = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?),(\d{1,4}(?:\.\d{1,6})?)", text)
    if not form or not all(0 < float(seconds) <= 3600 for seconds in form.groups()):
        raise ValueError("write connect,read, as in 5,60: each above 0 and up to 3600 seconds")
    return text


def _is_page_url(text: str) -> bool:
    """Return whether a text is a link to a page, which Markdown can hold."""
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return has_host and "@" not in parts.netloc and bool(re.fullmatch(r"https?://[^\s()<>]+", text))


def _require(is_valid: Callable[[Any], object], advice: str) -> AfterValidator:
    """Return a validator that refuses a value with advice on how to write it."""

    def check(value: Any) -> Any:
        if not is_valid(value):
            raise ValueError(advice)
        return value

    return AfterValidator(check)


_ApiUrl = Annotated[str, AfterValidator(_check_url)]
_Rate = Annotated[str, AfterValidator(_check_rate)]
_Token = Annotated[
    SecretStr,
    _require(
        lambda token: is_header_value(token.get_secret_value()),
        "it holds a blank, a line end or a character that no token has",
    ),
]
_Region = Annotated[
    str,
    _require(
        lambda text: text in SUPPORTED_REGIONS,
        "write a country's two capital letters, as in US or GB",
    ),
]
_PageUrl = Annotated[str, _require(_is_page_url, "write it as https://host/path")]


@dataclass(frozen=True, kw_only=True)
class SettingSource:
    """Settings from one source, such as a Prefect block.

    `name` names the source in messages. Sources with the same `origin` may share the login and its
    `api_url`. With an `account`, the values are the settings of that account alone. With a `fault`,
    no value is used, and the account cannot be used here.
    """

    name: str
    origin: str
    values: Mapping[str, Any]
    account: str = DEFAULT_ACCOUNT
    fault: str | None = None


class _DotenvSource(EnvSettingsSource):
    """The settings source for the text of a `.env`."""

    def __init__(self, settings_cls: type[BaseSettings], text: str) -> None:
        self._text = text
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        values = dotenv_values(stream=StringIO(self._text))
        return {name.lower(): value for name, value in values.items() if value}


class Account(BaseModel):
    """A business at the vendor: address, login and rate limit, one unit from one source.

    With a `fault`, its settings are wrong or left out, and nothing else of it is set.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    name: str = DEFAULT_ACCOUNT
    api_url: _ApiUrl | None = None
    api_token: _Token | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    rate_limit: _Rate = _DEFAULT_RATE
    fault: str | None = None

    @property
    def prefix(self) -> str:
        """What the variables of its settings begin with."""
        return build_prefix(self.name)

    def variable(self, setting: str) -> str:
        """Return the variable of one of its settings."""
        return build_variable(self.name, setting)

    @property
    def is_complete(self) -> bool:
        """Whether it has an address and a login, and no fault."""
        return self.fault is None and not self._list_missing()

    @property
    def address(self) -> str:
        """The address for messages, without a password; with the name, unless it is `default`."""
        address = hide_credentials(self.require_api_url())
        return address if self.name == DEFAULT_ACCOUNT else f"{address} (account {self.name})"

    def require_api_url(self) -> str:
        """Return the address.

        Raises:
            UsageError: it is not set.
        """
        if self.api_url is None:
            raise UsageError(f"{self.variable('api_url')} is not set")
        return self.api_url

    def require_login(self) -> None:
        """Check that an address, and a token or a complete login are set.

        Raises:
            UsageError: one is missing; the message names the variables.
        """
        if self.is_complete:
            return
        missing = self._list_missing()
        if self.name != DEFAULT_ACCOUNT:
            raise UsageError(self.describe_unusable())
        if len(missing) == len(_LOGINS[1]):
            raise UsageError(f"no login for the API: {self.describe_missing()}")
        raise UsageError(f"the login for the API is incomplete: {self.describe_missing()}")

    def describe_unusable(self) -> str:
        """Return why an account that is not complete cannot be used here."""
        if self.fault is not None:
            return f"account {self.name} cannot be used here: {self.fault}"
        return f"account {self.name} has no login here: {self.describe_missing()}"

    def describe_missing(self) -> str:
        """Return which variables to set, so that the account has an address and a login."""
        missing = self._list_missing()
        variables = ", ".join(map(self.variable, missing))
        if not set(_LOGINS[1]) <= set(missing):
            return f"set {variables}"
        if self.name == DEFAULT_ACCOUNT:
            return f"set {self.variable('api_token')}, or {variables}"
        address = [self.variable("api_url")] if self.api_url is None else []
        needed = " and ".join([*address, self.variable("api_token")])
        return f"set {needed} (or the four of an OAuth login), or create its block"

    def parse_rate(self) -> tuple[int, float]:
        """Return the rate limit as requests and seconds."""
        requests, seconds = self.rate_limit.split("/")
        return int(requests), float(seconds)

    def _list_missing(self) -> list[str]:
        """Return the settings that are missing; without any login, the four of an OAuth login."""
        address = ["api_url"] if self.api_url is None else []
        if self.api_token is not None:
            return address
        return address + [part for part in _LOGINS[1] if getattr(self, part) is None]


class Settings(BaseSettings):
    """All settings with their defaults. A campaign's row overrides those that are its columns."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: SecretStr | None = Field(
        None,
        description="URL of Postgres; for local commands also `embedded`: a local Postgres under"
        " .leadloop/",
    )
    api_url: _ApiUrl = Field(
        "https://app.squadrun.co",
        description="base URL of the API, from the same source as the login; plain http only to"
        " loopback",
    )
    api_token: _Token | None = Field(
        None, description="static bearer token; alternative to the four settings below"
    )
    client_id: str | None = Field(
        None, description="OAuth password grant; the token is renewed automatically"
    )
    client_secret: SecretStr | None = Field(None, description="OAuth password grant")
    username: str | None = Field(None, description="OAuth password grant")
    password: SecretStr | None = Field(None, description="OAuth password grant")
    rate_limit: _Rate = Field(
        _DEFAULT_RATE,
        description="rate limit of every process that uses this vendor account together,"
        " requests/seconds: up to 1000000 requests, up to 86400 seconds",
    )
    batch_size: int = Field(100, ge=1, le=10_000, description="leads per create or disable request")
    batch_bytes: int = Field(
        1_000_000,
        ge=1_000,
        le=100_000_000,
        description="bytes of a create request's body; a lead that needs more alone is rejected"
        " before any request",
    )
    page_size: int = Field(
        100,
        ge=1,
        le=10_000,
        description="results per page; rounded down to a number without a prime factor above 13",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="most concurrent API requests of one run; not set:"
        f" {MIN_CONCURRENCY}, and up to {MAX_CONCURRENCY} creates if the vendor's latency and the"
        " rate limit leave room for more",
    )
    timeout: Annotated[str, AfterValidator(_check_timeout)] = Field(
        "5,60",
        description="connect and read timeout in seconds, each above 0 and up to 3600; the read"
        " timeout is the deadline of a whole response, from the request to its last byte",
    )
    lookback: int = Field(
        900,
        ge=0,
        le=_A_MONTH_S,
        description="seconds before the end of the last poll that every poll reads again; a head"
        " poll reads 30 of them at most, and leaves the rest to the next plain poll",
    )
    settle: int = Field(
        60,
        ge=0,
        le=_A_DAY_S,
        description="seconds until the vendor shows a change; no window is closed before",
    )
    window: int = Field(
        3600, ge=1, le=_A_MONTH_S, description="longest window of one read, in seconds"
    )
    epoch_unit: Literal["ms", "s"] = Field(
        "ms", description="unit of the window bounds sent to the API"
    )
    default_region: _Region = Field(
        "US", description="region of phone numbers without a country code, two capital letters"
    )

    keep_history: int = Field(
        90, ge=8, le=36_500, description="days to keep windows, runs and latencies"
    )
    keep_raw: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="days to keep the vendor's complete results, and the answers of attempts; not"
        " set: indefinitely",
    )
    page_url: _PageUrl | None = Field(
        None,
        description="URL of `leadloop monitor` in the browser: runs in Prefect link to it, and the"
        " page answers under its host name and path, as behind a proxy",
    )
    monitor_database_url: SecretStr | None = Field(
        None,
        description="URL of Postgres with the login of `leadloop monitor`; not set: DATABASE_URL",
    )
    source_url: SecretStr | None = Field(
        None,
        description="URL of the same database with a login that reads only the campaigns' sources;"
        " not set: DATABASE_URL",
    )
    source_timeout: int = Field(
        120,
        ge=1,
        le=_A_DAY_S,
        description="timeout for reading a campaign's source, in seconds",
    )
    max_lead_age: int | None = Field(
        None,
        ge=1,
        le=_A_YEAR_S,
        description="seconds after its insert from which a lead is not sent any more, but rejected;"
        " not set: any age is sent",
    )

    _other_accounts: Mapping[str, Account] = PrivateAttr(default_factory=dict)
    # Faults of blocks that are no account's.
    _misnamed_blocks: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def load(cls, *overrides: SettingSource) -> Self:
        """Load the settings: the first of `overrides` wins, then the environment, then `.env`.

        Raises:
            UsageError: a value is wrong (the message names the variable and does not repeat it), a
                variable looks like a misspelt setting that no source sets, the login and its
                `api_url` come from different sources, two accounts have the same login, or another
                user controls `.env`. A wrong value of an account other than `default` is a fault of
                that account alone.
        """
        try:
            environment, dotenv = cls._read_sources()
            found = _merge_sources(environment, dotenv, *overrides)
            accounts = _find_accounts(environment, dotenv, *overrides)
            misspelt = [
                f"{name} is not a setting, did you mean {meant}?"
                for name, meant in cls._find_misspelt(environment, dotenv).items()
                if not _is_set(meant, found, accounts)
            ]
            if misspelt:
                raise UsageError(f"{' '.join(misspelt)} Rename or unset it")
            settings = cls(**{field: value for field, (value, _) in found.items()})
        except ValidationError as error:
            field = error.errors(include_input=False, include_url=False)[0]["loc"][0]
            source = next(
                (
                    each.name
                    for each in overrides
                    if each.account == DEFAULT_ACCOUNT and field in each.values
                ),
                None,
            )
            raise invalid_value(error, source) from None
        except UnicodeDecodeError:
            raise UsageError(f"{_DOTENV} is not UTF-8 text: save it as UTF-8") from None
        except OSError as error:
            raise UsageError(f"{_DOTENV} cannot be read: {error.strerror}") from None
        _check_one_origin(
            {field: source for field, (value, source) in found.items() if value is not None}
        )
        settings._other_accounts = {name: _make_account(each) for name, each in accounts.items()}
        settings._misnamed_blocks = _list_misnamed(overrides)
        _check_distinct_logins(settings.list_accounts())
        return settings

    @classmethod
    def describe_sources(cls, *overrides: SettingSource) -> dict[str, str]:
        """Return the name of the source of each setting that is set, by the setting's name.

        Accounts other than `default` have one source each, under `account NAME`.
        """
        environment, dotenv = cls._read_sources()
        found = _merge_sources(environment, dotenv, *overrides)
        accounts = _find_accounts(environment, dotenv, *overrides)
        return {
            field: found[field][1].name
            for field in cls.model_fields
            if field in found and found[field][0] is not None
        } | {f"account {name}": source.name for name, source in accounts.items()}

    @classmethod
    def _read_sources(cls) -> tuple[EnvSettingsSource, EnvSettingsSource]:
        """Read the environment and, once, the `.env` of the working directory."""
        return EnvSettingsSource(cls), _DotenvSource(cls, read_trusted(Path(_DOTENV)) or "")

    @classmethod
    def take_warnings(cls, *overrides: SettingSource) -> list[str]:
        """Return the new warnings of this process: misspelt variables, and misnamed blocks.

        A misspelt variable is harmless if its intended setting is set by any source.
        """
        environment, dotenv = cls._read_sources()
        found = _merge_sources(environment, dotenv, *overrides)
        accounts = _find_accounts(environment, dotenv, *overrides)
        lines = [
            f"{name} is not a setting and has no effect; {meant} is set and used"
            for name, meant in cls._find_misspelt(environment, dotenv).items()
            if _is_set(meant, found, accounts)
        ]
        lines += _list_misnamed(overrides)
        new = [line for line in lines if line not in _WARNED]
        _WARNED.update(new)
        return new

    @classmethod
    def _find_misspelt(
        cls, environment: EnvSettingsSource, dotenv: EnvSettingsSource
    ) -> dict[str, str]:
        """Return the intended setting of each variable that looks like a misspelt setting."""
        settings = [field.upper() for field in cls.model_fields]
        present = {**dotenv.env_vars, **environment.env_vars}
        meant = {
            name: _find_intended(name, settings)
            for name, value in sorted((name.upper(), value) for name, value in present.items())
            if name.startswith(PREFIX)
            and name.removeprefix(PREFIX) not in settings
            and parse_variable(name) is None
            and not (value or "").startswith(_KUBERNETES_PREFIX)
        }
        return {name: variable for name, variable in meant.items() if variable is not None}

    def get_account(self, name: str) -> Account:
        """Return an account; one that no source sets has neither address nor login."""
        if name != DEFAULT_ACCOUNT:
            return self._other_accounts.get(name) or Account(name=name)
        return Account.model_construct(
            name=DEFAULT_ACCOUNT,
            **{setting: getattr(self, setting) for setting in ACCOUNT_SETTINGS},
        )

    def list_accounts(self) -> list[Account]:
        """Return the account `default` and all others that a source sets, by their names."""
        return [self.get_account(DEFAULT_ACCOUNT)] + [
            self._other_accounts[name] for name in sorted(self._other_accounts)
        ]

    def list_faults(self) -> list[str]:
        """Return what is wrong with the settings of accounts other than `default`."""
        return [
            account.describe_unusable() for account in self.list_accounts() if account.fault
        ] + self._misnamed_blocks

    def list_complete_accounts(self) -> list[Account]:
        """Return the accounts that have an address and a login, `default` first."""
        return [account for account in self.list_accounts() if account.is_complete]

    def campaign_rules(self) -> CampaignRules:
        """Return the rules of a campaign whose row overrides no setting."""
        return CampaignRules(
            batch_size=self.batch_size,
            batch_bytes=self.batch_bytes,
            page_size=self.page_size,
            lookback_s=self.lookback,
            settle_s=self.settle,
            window_s=self.window,
            epoch_unit=self.epoch_unit,
            default_region=self.default_region,
            source_timeout_s=self.source_timeout,
            max_lead_age_s=self.max_lead_age,
        )

    def parse_rate(self) -> tuple[int, float]:
        """Return the rate limit of the account `default` as requests and seconds."""
        return self.get_account(DEFAULT_ACCOUNT).parse_rate()

    def parse_timeouts(self) -> tuple[float, float]:
        """Return the connect and read timeouts in seconds."""
        connect, read = self.timeout.split(",")
        return float(connect), float(read)

    @property
    def max_concurrency(self) -> int:
        """The most creates that a run sends at once."""
        return self.concurrency or MAX_CONCURRENCY

    @property
    def read_concurrency(self) -> int:
        """The requests at once of everything but creates."""
        return self.concurrency or MIN_CONCURRENCY

    @property
    def is_embedded(self) -> bool:
        """True if the database is a Postgres that local commands start automatically."""
        return self.database_url is not None and self.database_url.get_secret_value() == EMBEDDED

    def require_database_url(self) -> str:
        """Return the database's URL.

        Raises:
            UsageError: the URL is not set, or is `embedded`.
        """
        if self.is_embedded:
            raise UsageError(f"LEADLOOP_DATABASE_URL is wrong: {EMBEDDED_IS_LOCAL_ONLY}")
        if self.database_url is None:
            raise UsageError(
                "LEADLOOP_DATABASE_URL is not set: a deployment needs it in its worker's"
                " environment, or in a block (postgresql://user@host:5432/database)"
            )
        return self.database_url.get_secret_value()

    def require_source_url(self) -> str:
        """Return the URL for reading sources: LEADLOOP_SOURCE_URL, else LEADLOOP_DATABASE_URL.

        Raises:
            UsageError: neither is set.
        """
        if self.source_url is None:
            return self.require_database_url()
        return self.source_url.get_secret_value()

    @property
    def source_variable(self) -> str:
        """The variable whose value `require_source_url` returns."""
        return DATABASE_URL if self.source_url is None else SOURCE_URL

    def require_login(self) -> None:
        """Check that any account has a login.

        Raises:
            UsageError: none has; the message is about the account `default`.
        """
        if not self.list_complete_accounts():
            self.get_account(DEFAULT_ACCOUNT).require_login()


def _merge_sources(
    environment: EnvSettingsSource, dotenv: EnvSettingsSource, *overrides: SettingSource
) -> dict[str, tuple[Any, SettingSource]]:
    """Return each setting's value and the first source that sets it, by the setting's name."""
    sources = (
        *(source for source in overrides if source.account == DEFAULT_ACCOUNT),
        SettingSource(name=_ENVIRONMENT, origin=_ENVIRONMENT, values=environment()),
        SettingSource(name=_DOTENV, origin=_DOTENV, values=dotenv()),
    )
    found: dict[str, tuple[Any, SettingSource]] = {}
    for source in reversed(sources):
        values = source.values
        if any(all(part in values for part in login) for login in _LOGINS):
            # A complete login unsets every part of the other kind in later sources.
            values = {**dict.fromkeys(chain(*_LOGINS)), **values}
        found |= {name: (value, source) for name, value in values.items()}
    return found


def _find_accounts(
    environment: EnvSettingsSource, dotenv: EnvSettingsSource, *overrides: SettingSource
) -> dict[str, SettingSource]:
    """Return the source of each account but `default`: the first one that sets anything of it."""
    found: dict[str, SettingSource] = {}
    fault = _find_redirection(overrides)
    for name, variables in ((_DOTENV, dotenv.env_vars), (_ENVIRONMENT, environment.env_vars)):
        accounts: dict[str, dict[str, Any]] = {}
        for variable, value in variables.items():
            if value and (parsed := parse_variable(variable.upper())) is not None:
                account, setting = parsed
                accounts.setdefault(account, {})[setting] = value
        for account, values in accounts.items():
            found[account] = SettingSource(
                name=name, origin=name, values=values, account=account, fault=fault
            )
    # The first of the overrides wins.
    others = [source for source in overrides if source.account != DEFAULT_ACCOUNT]
    return found | {source.account: source for source in reversed(others)}


def _find_redirection(overrides: Sequence[SettingSource]) -> str | None:
    """Return why the accounts of the environment are left out; None if they are used.

    A run of another environment, such as staging, must not send with production's other logins.
    """
    for source in overrides:
        if source.account == DEFAULT_ACCOUNT and not _REDIRECTING.isdisjoint(source.values):
            return (
                f"its variables are left out, because {source.name} sets another database, login"
                " or api_url: create the account's block beside that one"
            )
    return None


def _list_misnamed(overrides: Sequence[SettingSource]) -> list[str]:
    """Return the faults of blocks that are no account's."""
    return [
        source.fault
        for source in overrides
        if source.account == DEFAULT_ACCOUNT and source.fault is not None
    ]


def _make_account(source: SettingSource) -> Account:
    """Return the account that a source sets; with a fault if a value is wrong."""
    if source.fault is not None:
        return Account(name=source.account, fault=source.fault)
    try:
        return Account(name=source.account, **source.values)
    except ValidationError as error:
        is_variable = source.name in (_ENVIRONMENT, _DOTENV)
        fault = invalid_value(
            error, None if is_variable else source.name, prefix=build_prefix(source.account)
        )
        return Account(name=source.account, fault=str(fault))


def _check_distinct_logins(accounts: Sequence[Account]) -> None:
    """Check that no two accounts share a login: the vendor would count their requests together.

    Raises:
        UsageError: two have the same login at the same address.
    """
    seen: dict[tuple[Any, ...], Account] = {}
    for account in accounts:
        if not account.is_complete:
            continue
        login = (account.api_url, account.api_token or (account.client_id, account.username))
        if (other := seen.setdefault(login, account)) is not account:
            raise UsageError(
                f"the accounts {other.name} and {account.name} have the same login at the same"
                " address, and the vendor counts their requests together: set one of them, and"
                " name it in the rows of all of their campaigns"
            )


def _find_intended(variable: str, settings: Sequence[str]) -> str | None:
    """Return the variable that one in capitals, which sets nothing, probably means; else None."""
    if not variable.startswith(ACCOUNT_PREFIX):
        setting = find_intended_setting(variable.removeprefix(PREFIX), settings)
        return None if setting is None else PREFIX + setting
    general = (PREFIX + setting for setting in settings if variable.endswith(f"_{setting}"))
    return find_intended_variable(variable) or next(general, None)


def invalid_value(error: ValidationError, source: str | None, prefix: str = PREFIX) -> UsageError:
    """Return a one-line error that names a setting and does not repeat its value.

    Args:
        error: of a model whose fields have the names of settings.
        source: the name of the value's source; None for the environment or `.env`.
        prefix: what the names of its variables begin with.
    """
    (first, *_) = error.errors(include_input=False, include_url=False)
    field = str(first["loc"][0])
    name = f"{field} of {source}" if source else prefix + field.upper()
    schema = Settings.model_json_schema()["properties"].get(field, {})
    # Of an optional setting, the form of its value.
    schema = schema.get("anyOf", [schema])[0]
    if first["type"] == "value_error":
        advice = first["msg"].removeprefix("Value error, ")
    elif "enum" in schema:
        advice = f"write {' or '.join(schema['enum'])}"
    elif "minimum" in schema:
        advice = f"write a whole number from {schema['minimum']} to {schema['maximum']}"
    else:
        advice = "it is not text"
    return UsageError(f"{name} is wrong: {advice}")


def _check_one_origin(sources: Mapping[str, SettingSource]) -> None:
    """Check that the login in use, and `api_url` if it is set, come from one origin.

    Otherwise a person with write access to one source (a block, say) could redirect the login of
    another source (a worker's environment) to an address under their control.

    Args:
        sources: the source of each setting that is set, by the setting's name.
    """
    in_use = next((login for login in _LOGINS if any(part in sources for part in login)), ())
    parts = [sources[part] for part in in_use if part in sources]
    if len({part.origin for part in parts}) > 1:
        names = " and ".join(dict.fromkeys(part.name for part in parts))
        raise UsageError(f"the login is split between {names}: set all of it in one of them")
    address = sources.get("api_url")
    if parts and address is not None and address.origin != parts[0].origin:
        raise UsageError(
            f"the login comes from {parts[0].name}, but api_url from {address.name}: set both"
            " in one of them, because a login is sent only to an api_url of the same source"
        )


def _is_set(
    variable: str,
    found: Mapping[str, tuple[Any, SettingSource]],
    accounts: Mapping[str, SettingSource],
) -> bool:
    if (parsed := parse_variable(variable)) is not None:
        account, setting = parsed
        return account in accounts and setting in accounts[account].values
    value, _ = found.get(variable.removeprefix(PREFIX).lower(), (None, None))
    return value is not None
