"""The settings: `LEADLOOP_…` in the environment, or in `.env` of the working directory."""

import re
from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from leadloop.core.campaigns import CampaignRules
from leadloop.core.errors import UsageError


def _sound_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as https://host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("write it as https://host, with no login, query or fragment")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise ValueError("plain http would send the token in the clear: use https")
    return text.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sound_token(token: SecretStr | None) -> SecretStr | None:
    if token is not None and not re.fullmatch("[!-~]+", token.get_secret_value()):
        raise ValueError("it holds a blank, a line end or a character that no token has")
    return token


class Settings(BaseSettings):
    """Every setting, with its default. A campaign's row overrides those that it has columns for."""

    model_config = SettingsConfigDict(
        env_prefix="LEADLOOP_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: SecretStr | None = Field(
        None, description="Postgres; by hand, an embedded one under .leadloop/ where it is not set"
    )
    api_url: Annotated[str, AfterValidator(_sound_address)] = Field(
        "https://app.squadrun.co", description="base URL of the API; plain http only to loopback"
    )
    api_token: Annotated[SecretStr | None, AfterValidator(_sound_token)] = Field(
        None, description="a fixed bearer token; or the four below"
    )
    client_id: str | None = Field(None, description="OAuth password grant, refreshed by itself")
    client_secret: SecretStr | None = Field(None, description="OAuth password grant")
    username: str | None = Field(None, description="OAuth password grant")
    password: SecretStr | None = Field(None, description="OAuth password grant")
    rate_limit: str = Field(
        "100/60",
        pattern=r"^[1-9]\d*/(0*[1-9]\d*(\.\d+)?|0+\.\d*[1-9]\d*)$",
        description="requests/seconds for the whole business, over all processes",
    )
    batch_size: int = Field(100, gt=0, description="leads a create or disable request")
    page_size: int = Field(100, gt=0, description="results a page")
    concurrency: int = Field(4, gt=0, le=64, description="API requests in flight in one run")
    timeout: str = Field(
        "5,60", pattern=r"^\d+(\.\d+)?,\d+(\.\d+)?$", description="connect,read in seconds"
    )
    lookback: int = Field(900, ge=0, description="seconds read again behind the watermark")
    settle: int = Field(60, ge=0, description="seconds that the vendor may take to show something")
    window: int = Field(3600, gt=0, description="the longest window of one reading, in seconds")
    epoch_unit: Literal["ms", "s"] = Field("ms", description="unit of the window bounds sent")
    default_region: str = Field(
        "US", pattern="^[A-Z]{2}$", description="for phone numbers without a country code"
    )

    @classmethod
    def load(cls) -> Self:
        """Read the settings.

        Raises:
            UsageError: a value is wrong; the message names the variable and does not repeat it.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = "LEADLOOP_" + "_".join(map(str, first["loc"])).upper()
            raise UsageError(
                f"{name} is wrong: {_plain(first['msg'], str(first['loc'][0]))}"
            ) from None

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
        )

    def rate(self) -> tuple[int, float]:
        """The rate limit as requests and seconds."""
        requests, seconds = self.rate_limit.split("/")
        return int(requests), float(seconds)

    def timeouts(self) -> tuple[float, float]:
        """Seconds to wait for a connection, and between the bytes of an answer."""
        connect, read = self.timeout.split(",")
        return float(connect), float(read)

    def require_database_url(self) -> str:
        """The database's URL.

        Raises:
            UsageError: it is not set.
        """
        if self.database_url is None:
            raise UsageError(
                "LEADLOOP_DATABASE_URL is not set: a deployment needs it in its environment"
                " (postgresql://user@host:5432/database)"
            )
        return self.database_url.get_secret_value()

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


_FORMS = {
    "rate_limit": "write requests/seconds, as in 100/60",
    "timeout": "write connect,read in seconds, as in 5,60",
    "default_region": "write two capital letters, as in US",
}


def _plain(message: str, field: str) -> str:
    return _FORMS.get(field, message.removeprefix("Value error, "))
