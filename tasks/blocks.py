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
from leadloop.settings import EMBEDDED, EMBEDDED_IS_LOCAL, Given, Settings, wrong

# A form that is sent in empty leaves a text without a character.
_SAYS_NOTHING = (None, "", SecretStr(""))


def _as_in_settings(name: str) -> Any:
    """A field that says what the setting of that name is; where it is empty, others decide."""
    return Field(default=None, description=Settings.model_fields[name].description)


class LeadloopCredentials(Block):
    """The database's URL, the login for the vendor's API, and the address it belongs to."""

    _block_type_name = "leadloop credentials"
    _block_type_slug = "leadloop-credentials"
    _description = "The database's URL, and the login for the vendor's API with its address."
    model_config = ConfigDict(hide_input_in_errors=True)

    database_url: SecretStr | None = _as_in_settings("database_url")
    source_url: SecretStr | None = _as_in_settings("source_url")
    api_url: str | None = _as_in_settings("api_url")
    api_token: SecretStr | None = _as_in_settings("api_token")
    client_id: str | None = _as_in_settings("client_id")
    client_secret: SecretStr | None = _as_in_settings("client_secret")
    username: str | None = _as_in_settings("username")
    password: SecretStr | None = _as_in_settings("password")

    @field_validator("database_url")
    @classmethod
    def _refuse_embedded(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and url.get_secret_value() == EMBEDDED:
            raise ValueError(EMBEDDED_IS_LOCAL)
        return url


class LeadloopSettings(Block):
    """Everything else that can be set, as `leadloop doctor` and the reference describe it."""

    _block_type_name = "leadloop settings"
    _block_type_slug = "leadloop-settings"
    _description = "The vendor's address and limits, and how leads are sent and outcomes read."

    api_url: str | None = _as_in_settings("api_url")
    rate_limit: str | None = _as_in_settings("rate_limit")
    batch_size: int | None = _as_in_settings("batch_size")
    page_size: int | None = _as_in_settings("page_size")
    concurrency: int | None = _as_in_settings("concurrency")
    timeout: str | None = _as_in_settings("timeout")
    lookback: int | None = _as_in_settings("lookback")
    settle: int | None = _as_in_settings("settle")
    window: int | None = _as_in_settings("window")
    epoch_unit: str | None = _as_in_settings("epoch_unit")
    default_region: str | None = _as_in_settings("default_region")
    keep_history: int | None = _as_in_settings("keep_history")
    keep_raw: int | None = _as_in_settings("keep_raw")
    page_url: str | None = _as_in_settings("page_url")
    source_timeout: int | None = _as_in_settings("source_timeout")


class RunSettings(BaseModel):
    """What one run is told. A campaign's row still wins where it has a value of its own."""

    model_config = ConfigDict(extra="forbid")

    block: str | None = Field(
        default=None,
        description="name of a leadloop-credentials block, a leadloop-settings block, or both",
    )
    batch_size: int | None = _as_in_settings("batch_size")
    page_size: int | None = _as_in_settings("page_size")
    concurrency: int | None = _as_in_settings("concurrency")
    timeout: str | None = _as_in_settings("timeout")
    lookback: int | None = _as_in_settings("lookback")
    settle: int | None = _as_in_settings("settle")
    window: int | None = _as_in_settings("window")


def settled(told: RunSettings | None) -> Settings:
    """Resolve the settings of a run: its parameters, then its blocks, then the environment.

    Variables that look like settings and are none are warned about in the run's log.

    Raises:
        UsageError: a value is wrong, or there is no block of that name.
    """
    sources = given(told)
    settings = Settings.load(*sources)
    for line in Settings.take_warnings(*sources):
        get_run_logger().warning(line)
    return settings


def given(told: RunSettings | None) -> list[Given]:
    """What a run is given beside the environment; the first wins.

    Raises:
        UsageError: there is no block of that name, or what it holds has not the form of a setting.
    """
    if told is None:
        return []
    parameters = "the run's parameters"
    own = Given(source=parameters, origin=parameters, values=_values(told))
    return [own, *(_from_blocks(told.block) if told.block else ())]


def _from_blocks(name: str) -> list[Given]:
    found = list(_blocks(name))
    if not found:
        raise UsageError(
            f"no block leadloop-credentials/{name} or leadloop-settings/{name} on this Prefect"
            " server: make one in its page, or correct the name"
        )
    _require_equal_addresses(found)
    return found


def _require_equal_addresses(blocks: Sequence[Given]) -> None:
    addresses = {
        block.source: block.values["api_url"].rstrip("/")
        for block in blocks
        if "api_url" in block.values
    }
    if len(set(addresses.values())) > 1:
        raise UsageError(
            f"api_url differs between {' and '.join(addresses)}: set it in one of them, beside the"
            " login"
        )


def _blocks(name: str) -> Iterator[Given]:
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
                raise wrong(error.__cause__, source) from None
            raise
        # Both blocks of a name are one source: whoever sets up the one also sets up the other.
        yield Given(source=source, origin=f"blocks {name}", values=_values(block))


def _values(model: BaseModel) -> dict[str, Any]:
    """What it says of settings: nothing by an empty text, as in the environment."""
    fields = Settings.model_fields.keys() & type(model).model_fields.keys()
    values = {name: getattr(model, name) for name in sorted(fields)}
    return {name: value for name, value in values.items() if value not in _SAYS_NOTHING}
