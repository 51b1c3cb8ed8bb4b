"""Settings from Prefect: a run's own parameters, and blocks that a team shares.

What a run is told wins over what its blocks hold, and that over the worker's environment. Prefect
keeps parameters in clear, so nothing secret is among them; blocks hold secrets masked.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from prefect.blocks.core import Block
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from leadloop.core.errors import UsageError
from leadloop.settings import (
    EMBEDDED,
    EMBEDDED_IS_LOCAL_ONLY,
    Settings,
    SettingSource,
    invalid_value,
)

# A form that is sent in empty leaves a text without a character.
_EMPTY_VALUES = (None, "", SecretStr(""))


def _optional_setting(name: str) -> Any:
    """A field that says what the setting of that name is; where it is empty, others decide."""
    return Field(default=None, description=Settings.model_fields[name].description)


class LeadloopCredentials(Block):
    """The database's URL, the login for the vendor's API, and the address it belongs to."""

    _block_type_name = "leadloop credentials"
    _block_type_slug = "leadloop-credentials"
    _description = "The database's URL, and the login for the vendor's API with its address."
    model_config = ConfigDict(hide_input_in_errors=True)

    database_url: SecretStr | None = _optional_setting("database_url")
    source_url: SecretStr | None = _optional_setting("source_url")
    api_url: str | None = _optional_setting("api_url")
    api_token: SecretStr | None = _optional_setting("api_token")
    client_id: str | None = _optional_setting("client_id")
    client_secret: SecretStr | None = _optional_setting("client_secret")
    username: str | None = _optional_setting("username")
    password: SecretStr | None = _optional_setting("password")

    @field_validator("database_url")
    @classmethod
    def _reject_embedded(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and url.get_secret_value() == EMBEDDED:
            raise ValueError(EMBEDDED_IS_LOCAL_ONLY)
        return url


class LeadloopSettings(Block):
    """Everything else that can be set, as `leadloop doctor` and the reference describe it."""

    _block_type_name = "leadloop settings"
    _block_type_slug = "leadloop-settings"
    _description = "The vendor's address and limits, and how leads are sent and outcomes read."

    api_url: str | None = _optional_setting("api_url")
    rate_limit: str | None = _optional_setting("rate_limit")
    batch_size: int | None = _optional_setting("batch_size")
    page_size: int | None = _optional_setting("page_size")
    concurrency: int | None = _optional_setting("concurrency")
    timeout: str | None = _optional_setting("timeout")
    lookback: int | None = _optional_setting("lookback")
    settle: int | None = _optional_setting("settle")
    window: int | None = _optional_setting("window")
    epoch_unit: str | None = _optional_setting("epoch_unit")
    default_region: str | None = _optional_setting("default_region")
    keep_history: int | None = _optional_setting("keep_history")
    keep_raw: int | None = _optional_setting("keep_raw")
    page_url: str | None = _optional_setting("page_url")
    source_timeout: int | None = _optional_setting("source_timeout")


class RunSettings(BaseModel):
    """What one run is told. A campaign's row still wins where it has a value of its own."""

    model_config = ConfigDict(extra="forbid")

    block: str | None = Field(
        default=None,
        description="name of a leadloop-credentials block, a leadloop-settings block, or both",
    )
    batch_size: int | None = _optional_setting("batch_size")
    page_size: int | None = _optional_setting("page_size")
    concurrency: int | None = _optional_setting("concurrency")
    timeout: str | None = _optional_setting("timeout")
    lookback: int | None = _optional_setting("lookback")
    settle: int | None = _optional_setting("settle")
    window: int | None = _optional_setting("window")


def resolve_settings(run_settings: RunSettings | None) -> Settings:
    """Resolve the settings of a run: its parameters, then its blocks, then the environment.

    Variables that look like settings and are none are warned about in the run's log.

    Raises:
        UsageError: a value is wrong, or there is no block of that name.
    """
    sources = collect_setting_sources(run_settings)
    settings = Settings.load(*sources)
    for line in Settings.take_warnings(*sources):
        get_run_logger().warning(line)
    return settings


def collect_setting_sources(run_settings: RunSettings | None) -> list[SettingSource]:
    """What a run is given beside the environment; the first wins.

    Raises:
        UsageError: there is no block of that name, or what it holds has not the form of a setting.
    """
    if run_settings is None:
        return []
    parameters = "the run's parameters"
    own = SettingSource(name=parameters, origin=parameters, values=_setting_values(run_settings))
    return [own, *(_load_blocks(run_settings.block) if run_settings.block else ())]


def _load_blocks(name: str) -> list[SettingSource]:
    found = list(_find_blocks(name))
    if not found:
        raise UsageError(
            f"no block leadloop-credentials/{name} or leadloop-settings/{name} on this Prefect"
            " server: make one in its page, or correct the name"
        )
    _require_same_api_url(found)
    return found


def _require_same_api_url(blocks: Sequence[SettingSource]) -> None:
    addresses = {
        block.name: block.values["api_url"].rstrip("/")
        for block in blocks
        if "api_url" in block.values
    }
    if len(set(addresses.values())) > 1:
        raise UsageError(
            f"api_url differs between {' and '.join(addresses)}: set it in one of them, beside the"
            " login"
        )


def _find_blocks(name: str) -> Iterator[SettingSource]:
    for kind in (LeadloopCredentials, LeadloopSettings):
        source = f"block {kind.get_block_type_slug()}/{name}"
        try:
            block = cast("Block", kind.load(name))
        except ValueError:
            # Prefect's word for a block that is not there.
            continue
        except RuntimeError as error:
            # And for one that was made elsewhere, and not by this class.
            if isinstance(error.__cause__, ValidationError):
                raise invalid_value(error.__cause__, source) from None
            raise
        # Both blocks of a name are one source: whoever sets up the one also sets up the other.
        yield SettingSource(name=source, origin=f"blocks {name}", values=_setting_values(block))


def _setting_values(model: BaseModel) -> dict[str, Any]:
    """What it says of settings: nothing by an empty text, as in the environment."""
    fields = Settings.model_fields.keys() & type(model).model_fields.keys()
    values = {name: getattr(model, name) for name in sorted(fields)}
    return {name: value for name, value in values.items() if value not in _EMPTY_VALUES}
