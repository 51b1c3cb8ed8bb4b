"""The settings: `LEADLOOP_…` in the environment, or in `.env` of the working directory.

A run of a deployment may be given others, which win: see tasks/blocks.py.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from leadloop.core.addresses import is_loopback
from leadloop.core.campaign_rules import CampaignRules
from leadloop.core.errors import UsageError
from leadloop.core.misspellings import find_intended_setting
from leadloop.trusted_files import read_trusted

#: What `LEADLOOP_DATABASE_URL` holds for a Postgres that a local command starts by itself.
EMBEDDED = "embedded"

#: The variables that name a database, for messages.
DATABASE_URL = "LEADLOOP_DATABASE_URL"
SOURCE_URL = "LEADLOOP_SOURCE_URL"
MONITOR_DATABASE_URL = "LEADLOOP_MONITOR_DATABASE_URL"

_DOTENV = ".env"
_PREFIX = "LEADLOOP_"
_A_DAY_S = 86_400
_A_MONTH_S = 30 * _A_DAY_S
EMBEDDED_IS_LOCAL_ONLY = (
    f"`{EMBEDDED}` is for local commands, a deployment's run works in a temporary directory: write"
    " postgresql://user@host:5432/database"
)
#: The two kinds of login: a token, and the parts of the OAuth password grant.
_LOGINS = (("api_token",), ("client_id", "client_secret", "username", "password"))
#: With this begin values that Kubernetes adds for each service, as LEADLOOP_PAGE_PORT.
_OF_KUBERNETES = "tcp://"
#: The warnings of this process: each is given once, though settings are loaded several times.
_WARNED: set[str] = set()


def _sound_address(text: str) -> str:
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
    if parts.username or parts.query or parts.fragment:
        raise ValueError("write it as https://host, with no login, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain http would send the token in the clear: use https")
    return text.rstrip("/")


def _sound_page(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"https?://[^\s()<>]+", text):
        raise ValueError("write it as https://host/path")
    return text


def _sound_token(token: SecretStr | None) -> SecretStr | None:
    if token is not None and not re.fullmatch("[!-~]+", token.get_secret_value()):
        raise ValueError("it holds a blank, a line end or a character that no token has")
    return token


def _sound_rate(text: str) -> str:
    """Requests/seconds; in plain digits, so that no exponent makes a ring of slots absurd."""
    form = re.fullmatch(r"(\d{1,7})/(\d{1,5}(?:\.\d{1,6})?)", text)
    if not form or not 1 <= int(form[1]) <= 1_000_000 or not 0 < float(form[2]) <= _A_DAY_S:
        raise ValueError(
            "write requests/seconds, as in 100/60: 1 to 1000000 requests, up to 86400 seconds"
        )
    return text


def _sound_timeout(text: str) -> str:
    form = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?),(\d{1,4}(?:\.\d{1,6})?)", text)
    if not form or not all(0 < float(seconds) <= 3600 for seconds in form.groups()):
        raise ValueError("write connect,read, as in 5,60: each above 0 and up to 3600 seconds")
    return text


def _sound_region(text: str) -> str:
    if text not in SUPPORTED_REGIONS:
        raise ValueError("write a country's two capital letters, as in US or GB")
    return text


@dataclass(frozen=True, kw_only=True)
class SettingSource:
    """Settings from one place, such as a Prefect block.

    `source` names the place in messages. Places with the same `origin` count as one source of the
    login and its address.
    """

    name: str
    origin: str
    values: Mapping[str, Any]


class _DotenvSource(EnvSettingsSource):
    """The settings in the text of a `.env`."""

    def __init__(self, settings_cls: type[BaseSettings], text: str) -> None:
        self._text = text
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        values = dotenv_values(stream=StringIO(self._text))
        return {name.lower(): value for name, value in values.items() if value}


class Settings(BaseSettings):
    """Every setting, with its default. A campaign's row overrides those that it has columns for."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: SecretStr | None = Field(
        None,
        description="Postgres; for local commands also `embedded`, a throw-away one under"
        " .leadloop/",
    )
    api_url: Annotated[str, AfterValidator(_sound_address)] = Field(
        "https://app.squadrun.co",
        description="base URL of the API, from the same source as the login; plain http only to"
        " loopback",
    )
    api_token: Annotated[SecretStr | None, AfterValidator(_sound_token)] = Field(
        None, description="a fixed bearer token; or the four below"
    )
    client_id: str | None = Field(None, description="OAuth password grant, refreshed by itself")
    client_secret: SecretStr | None = Field(None, description="OAuth password grant")
    username: str | None = Field(None, description="OAuth password grant")
    password: SecretStr | None = Field(None, description="OAuth password grant")
    rate_limit: Annotated[str, AfterValidator(_sound_rate)] = Field(
        "100/60",
        description="requests/seconds for the whole business, over all processes: up to 1000000"
        " requests, up to 86400 seconds",
    )
    batch_size: int = Field(100, ge=1, le=10_000, description="leads a create or disable request")
    page_size: int = Field(100, ge=1, le=10_000, description="results a page")
    concurrency: int = Field(4, ge=1, le=64, description="API requests in flight in one run")
    timeout: Annotated[str, AfterValidator(_sound_timeout)] = Field(
        "5,60", description="connect,read in seconds, each above 0 and up to 3600"
    )
    lookback: int = Field(
        900, ge=0, le=_A_MONTH_S, description="seconds read again behind the watermark"
    )
    settle: int = Field(
        60, ge=0, le=_A_DAY_S, description="seconds that the vendor may take to show something"
    )
    window: int = Field(
        3600, ge=1, le=_A_MONTH_S, description="the longest window of one reading, in seconds"
    )
    epoch_unit: Literal["ms", "s"] = Field("ms", description="unit of the window bounds sent")
    default_region: Annotated[str, AfterValidator(_sound_region)] = Field(
        "US", description="for phone numbers without a country code, two capital letters"
    )

    keep_history: int = Field(
        90, ge=8, le=36_500, description="days that windows and runs are kept for"
    )
    keep_raw: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="days that the vendor's answers are kept whole; not set: for ever",
    )
    page_url: Annotated[str | None, AfterValidator(_sound_page)] = Field(
        None, description="where `leadloop monitor` is reached; runs in Prefect link to it"
    )
    monitor_database_url: SecretStr | None = Field(
        None,
        description="Postgres, of a login for `leadloop monitor` alone; not set: DATABASE_URL",
    )
    source_url: SecretStr | None = Field(
        None,
        description="Postgres, of a login that reads the campaigns' sources and nothing of leadloop"
        "'s, in the same database; not set: DATABASE_URL",
    )
    source_timeout: int = Field(
        120,
        ge=1,
        le=_A_DAY_S,
        description="seconds that a campaign's source, a table of your own, may take to be read",
    )

    @classmethod
    def load(cls, *given: SettingSource) -> Self:
        """Read the settings: from what is given, the first of it first, else the environment.

        Raises:
            UsageError: a value is wrong (the message names the variable and does not repeat it), a
                variable looks like a misspelt setting that no source sets, the login and its
                address come from different sources, or another user controls `.env`.
        """
        try:
            environment, dotenv = cls._sources()
            found = _found(environment, dotenv, *given)
            _require_no_misspelt(cls._misspelt(environment, dotenv), found)
            settings = cls(**{field: value for field, (value, _) in found.items()})
        except ValidationError as error:
            field = _field(error)
            source = next((one.name for one in given if field in one.values), None)
            raise invalid_value(error, source) from None
        except UnicodeDecodeError:
            raise UsageError(f"{_DOTENV} is not UTF-8 text: save it as UTF-8") from None
        except OSError as error:
            raise UsageError(f"{_DOTENV} cannot be read: {error.strerror}") from None
        _require_one_origin(
            {field: place for field, (value, place) in found.items() if value is not None}
        )
        return settings

    @classmethod
    def describe_sources(cls, *given: SettingSource) -> dict[str, str]:
        """Where each setting that is not at its default comes from, by the setting's name."""
        found = _found(*cls._sources(), *given)
        return {
            field: found[field][1].name
            for field in cls.model_fields
            if field in found and found[field][0] is not None
        }

    @classmethod
    def _sources(cls) -> tuple[EnvSettingsSource, EnvSettingsSource]:
        """Read the environment and, once, the `.env` of the working directory."""
        return EnvSettingsSource(cls), _DotenvSource(cls, read_trusted(Path(_DOTENV)) or "")

    @classmethod
    def take_warnings(cls, *given: SettingSource) -> list[str]:
        """Return the warnings about misspelt variables that this process did not have before.

        A variable whose intended setting is set, by whatever source, does no harm.
        """
        environment, dotenv = cls._sources()
        found = _found(environment, dotenv, *given)
        lines = [
            f"{name} is not a setting and has no effect; {meant} is set, and is used"
            for name, meant in cls._misspelt(environment, dotenv).items()
            if _is_set(meant, found)
        ]
        new = [line for line in lines if line not in _WARNED]
        _WARNED.update(new)
        return new

    @classmethod
    def _misspelt(cls, environment: EnvSettingsSource, dotenv: EnvSettingsSource) -> dict[str, str]:
        """Return the variables that are no setting and look like one, each with that one's name."""
        settings = [field.upper() for field in cls.model_fields]
        present = {**dotenv.env_vars, **environment.env_vars}
        meant = {
            name: find_intended_setting(name.removeprefix(_PREFIX), settings)
            for name, value in sorted((name.upper(), value) for name, value in present.items())
            if name.startswith(_PREFIX)
            and name.removeprefix(_PREFIX) not in settings
            and not (value or "").startswith(_OF_KUBERNETES)
        }
        return {name: _PREFIX + setting for name, setting in meant.items() if setting is not None}

    def campaign_rules(self) -> CampaignRules:
        """What holds for a campaign whose row overrides nothing."""
        return CampaignRules(
            batch_size=self.batch_size,
            page_size=self.page_size,
            lookback_s=self.lookback,
            settle_s=self.settle,
            window_s=self.window,
            epoch_unit=self.epoch_unit,
            default_region=self.default_region,
            source_timeout_s=self.source_timeout,
        )

    def parse_rate(self) -> tuple[int, float]:
        """The rate limit as requests and seconds."""
        requests, seconds = self.rate_limit.split("/")
        return int(requests), float(seconds)

    def parse_timeouts(self) -> tuple[float, float]:
        """Seconds to wait for a connection, and between the bytes of an answer."""
        connect, read = self.timeout.split(",")
        return float(connect), float(read)

    @property
    def is_embedded(self) -> bool:
        """Whether the database is a Postgres that a local command starts by itself."""
        return self.database_url is not None and self.database_url.get_secret_value() == EMBEDDED

    def require_database_url(self) -> str:
        """Return the database's URL.

        Raises:
            UsageError: it is not set, or `embedded`.
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
        """Return the URL of the login that reads sources: LEADLOOP_SOURCE_URL, else DATABASE_URL.

        Raises:
            UsageError: neither is set.
        """
        if self.source_url is None:
            return self.require_database_url()
        return self.source_url.get_secret_value()

    @property
    def source_variable(self) -> str:
        """The variable that `require_source_url` returns the value of."""
        return DATABASE_URL if self.source_url is None else SOURCE_URL

    def require_login(self) -> None:
        """Make sure that there is a token or a whole login.

        Raises:
            UsageError: there is neither, or the login lacks a part.
        """
        if self.api_token is not None:
            return
        parts = ("client_id", "client_secret", "username", "password")
        missing = [f"LEADLOOP_{name.upper()}" for name in parts if getattr(self, name) is None]
        if len(missing) == len(parts):
            raise UsageError(
                "no login for the API: set LEADLOOP_API_TOKEN, or " + ", ".join(missing)
            )
        if missing:
            raise UsageError(f"the login for the API is incomplete: set {', '.join(missing)}")


def _found(
    environment: EnvSettingsSource, dotenv: EnvSettingsSource, *given: SettingSource
) -> dict[str, tuple[Any, SettingSource]]:
    """Return each setting's value and the first place that sets it, by the setting's name."""
    places = (
        *given,
        SettingSource(name="the environment", origin="the environment", values=environment()),
        SettingSource(name=_DOTENV, origin=_DOTENV, values=dotenv()),
    )
    found: dict[str, tuple[Any, SettingSource]] = {}
    for place in reversed(places):
        found |= {name: (value, place) for name, value in _with_no_other(place.values)}
    return found


def invalid_value(error: ValidationError, source: str | None) -> UsageError:
    """What is wrong with a value, in a line that names it and does not repeat it.

    Args:
        error: of a model whose fields have the names of settings.
        source: where it comes from; None: from the environment, or `.env`.
    """
    field = _field(error)
    name = f"{field} of {source}" if source else _variable(field)
    message = error.errors(include_input=False, include_url=False)[0]["msg"]
    return UsageError(f"{name} is wrong: {_in_our_words(field, message)}")


def _field(error: ValidationError) -> str:
    return str(error.errors(include_input=False, include_url=False)[0]["loc"][0])


def _require_one_origin(places: Mapping[str, SettingSource]) -> None:
    """Check that the login in force, and `api_url` where it is set, come from one origin.

    Otherwise whoever may write to one place (a block, say) could have the login of another place
    (a worker's environment) sent to an address of theirs.

    Args:
        places: where each setting that is set comes from, by the setting's name.
    """
    in_force = next((login for login in _LOGINS if any(part in places for part in login)), ())
    parts = [places[part] for part in in_force if part in places]
    if len({part.origin for part in parts}) > 1:
        sources = " and ".join(dict.fromkeys(part.name for part in parts))
        raise UsageError(f"the login is put together from {sources}: set all of it in one of them")
    address = places.get("api_url")
    if parts and address is not None and address.origin != parts[0].origin:
        raise UsageError(
            f"the login comes from {parts[0].name}, but api_url from {address.name}: set both"
            " in one of them, a login is sent only to an api_url of the same source"
        )


def _with_no_other(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The values; with a whole login among them they also say that there is no other one."""
    whole = any(all(part in values for part in login) for login in _LOGINS)
    return ({**dict.fromkeys(chain(*_LOGINS)), **values} if whole else values).items()


def _variable(field: str) -> str:
    return _PREFIX + field.upper()


def _require_no_misspelt(
    misspelt: Mapping[str, str], found: Mapping[str, tuple[Any, SettingSource]]
) -> None:
    lines = [
        f"{name} is not a setting, did you mean {meant}?"
        for name, meant in misspelt.items()
        if not _is_set(meant, found)
    ]
    if lines:
        raise UsageError(f"{' '.join(lines)} Rename or unset it")


def _is_set(variable: str, found: Mapping[str, tuple[Any, SettingSource]]) -> bool:
    value, _ = found.get(variable.removeprefix(_PREFIX).lower(), (None, None))
    return value is not None


def _in_our_words(field: str, message: str) -> str:
    if message.startswith("Value error, "):
        return message.removeprefix("Value error, ")
    form = Settings.model_json_schema()["properties"][field]
    if "enum" in form:
        return f"write {' or '.join(form['enum'])}"
    if "minimum" in form:
        return f"write a whole number from {form['minimum']} to {form['maximum']}"
    return "it is not text"
