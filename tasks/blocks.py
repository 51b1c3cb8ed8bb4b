"""Prefect blocks and run parameters as sources of settings.

A run's parameters override its blocks, and its blocks override the worker's environment. Prefect
stores parameters in plain text, so no parameter is a secret; blocks mask their secrets.
"""

from typing import Any, cast

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from leadloop.core.accounts import (
    BLOCK_SEPARATOR,
    DEFAULT_ACCOUNT,
    NAME_FORM,
    is_account_name,
)
from leadloop.core.errors import UsageError
from leadloop.settings import (
    EMBEDDED,
    EMBEDDED_IS_LOCAL_ONLY,
    Settings,
    SettingSource,
    invalid_value,
)

# A form field that is left empty in Prefect's page is saved as an empty string.
_EMPTY_VALUES = (None, "", SecretStr(""))


def _optional_setting(name: str) -> Any:
    """Return an optional override of the setting of the same name."""
    return Field(default=None, description=Settings.model_fields[name].description)


class LeadloopCredentials(Block):
    """A Prefect block with the database URL, the API login and the API URL of that login."""

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


class LeadloopAccount(Block):
    """A Prefect block with the login, the address and the rate limit of another account.

    Its name is that of the run's block, two dashes, and the account: `team--emea`.
    """

    _block_type_name = "leadloop account"
    _block_type_slug = "leadloop-account"
    _description = "Another login for the vendor's API, with its address and its rate limit."
    model_config = ConfigDict(hide_input_in_errors=True)

    api_url: str | None = _optional_setting("api_url")
    api_token: SecretStr | None = _optional_setting("api_token")
    client_id: str | None = _optional_setting("client_id")
    client_secret: SecretStr | None = _optional_setting("client_secret")
    username: str | None = _optional_setting("username")
    password: SecretStr | None = _optional_setting("password")
    rate_limit: str | None = _optional_setting("rate_limit")


class LeadloopSettings(Block):
    """A Prefect block with all other settings, as docs/reference/settings.md describes them."""

    _block_type_name = "leadloop settings"
    _block_type_slug = "leadloop-settings"
    _description = "The vendor's address and limits, and how leads are sent and outcomes read."

    api_url: str | None = _optional_setting("api_url")
    rate_limit: str | None = _optional_setting("rate_limit")
    batch_size: int | None = _optional_setting("batch_size")
    batch_bytes: int | None = _optional_setting("batch_bytes")
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
    max_lead_age: int | None = _optional_setting("max_lead_age")


class RunSettings(BaseModel):
    """The settings of one run, as flow parameters; a campaign's row overrides them."""

    model_config = ConfigDict(extra="forbid")

    block: str | None = Field(
        default=None,
        description="name of a leadloop-credentials block, a leadloop-settings block, or both",
    )
    batch_size: int | None = _optional_setting("batch_size")
    batch_bytes: int | None = _optional_setting("batch_bytes")
    page_size: int | None = _optional_setting("page_size")
    concurrency: int | None = _optional_setting("concurrency")
    timeout: str | None = _optional_setting("timeout")
    lookback: int | None = _optional_setting("lookback")
    settle: int | None = _optional_setting("settle")
    window: int | None = _optional_setting("window")


def resolve_settings(run_settings: RunSettings | None) -> Settings:
    """Resolve the settings of a run: its parameters, then its blocks, then the environment.

    Unknown `LEADLOOP_…` variables and misnamed blocks are reported as warnings in the run's log.

    Raises:
        UsageError: a value is invalid, or no block has that name.
    """
    sources = collect_setting_sources(run_settings)
    settings = Settings.load(*sources)
    for line in Settings.take_warnings(*sources):
        get_run_logger().warning(line)
    return settings


def collect_setting_sources(run_settings: RunSettings | None) -> list[SettingSource]:
    """Return the sources that override the environment, highest precedence first.

    Raises:
        UsageError: no block has that name, one of its values is invalid, or the two blocks of the
            name differ in api_url.
    """
    if run_settings is None:
        return []
    origin = "the run's parameters"
    parameters = SettingSource(name=origin, origin=origin, values=_setting_values(run_settings))
    if not run_settings.block:
        return [parameters]
    blocks = [
        block
        for kind in (LeadloopCredentials, LeadloopSettings)
        if (block := _find_block(kind, run_settings.block)) is not None
    ]
    accounts = _find_account_blocks(run_settings.block)
    if not blocks and not accounts:
        raise UsageError(
            f"no block leadloop-credentials/{run_settings.block} or"
            f" leadloop-settings/{run_settings.block} on this Prefect server: create one in"
            " Prefect's UI, or correct the name"
        )
    urls = {
        block.name: block.values["api_url"].rstrip("/")
        for block in blocks
        if "api_url" in block.values
    }
    if len(set(urls.values())) > 1:
        raise UsageError(
            f"api_url differs between {' and '.join(urls)}: set it only in the block that holds"
            " the login"
        )
    return [parameters, *blocks, *accounts]


def _find_block(
    kind: type[Block], name: str, account: str = DEFAULT_ACCOUNT
) -> SettingSource | None:
    """Return the settings in the block of that kind and name; None if there is no such block."""
    source = f"block {kind.get_block_type_slug()}/{name}"
    try:
        block = cast("Block", kind.load(name))
    except ValueError:
        # Prefect raises ValueError for a block that does not exist,
        return None
    except RuntimeError as error:
        # and RuntimeError for one whose values do not fit this class.
        if not isinstance(error.__cause__, ValidationError):
            raise
        fault = invalid_value(error.__cause__, source)
        if account == DEFAULT_ACCOUNT:
            raise fault from None
        return SettingSource(
            name=source, origin=source, values={}, account=account, fault=str(fault)
        )
    # The two blocks of a name have one origin, since one person sets up both.
    return SettingSource(
        name=source, origin=f"blocks {name}", values=_setting_values(block), account=account
    )


def _find_account_blocks(name: str) -> list[SettingSource]:
    """Return the settings of each account in a block that belongs to the run's block `name`.

    A block with a wrong value or name has a fault, so that the other accounts are served.
    """
    kind = LeadloopAccount.get_block_type_slug()
    prefix = f"{name}{BLOCK_SEPARATOR}"
    with get_client(sync_client=True) as client:
        try:
            documents = client.read_block_documents_by_type(kind, include_secrets=False)
        except PrefectHTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return []  # the server has never seen such a block
            raise
    found = []
    for block_name in sorted(each.name or "" for each in documents):
        account = block_name.removeprefix(prefix)
        if not block_name.startswith(prefix) or BLOCK_SEPARATOR in account:
            continue  # of another run's block
        if account == DEFAULT_ACCOUNT or not is_account_name(account):
            source = f"block {kind}/{block_name}"
            fault = (
                f"{source} is no account's, and is not used: name it after an account other than"
                f" {DEFAULT_ACCOUNT} ({NAME_FORM})"
            )
            found.append(SettingSource(name=source, origin=source, values={}, fault=fault))
            continue
        account_source = _find_block(LeadloopAccount, block_name, account)
        if account_source is not None and (account_source.values or account_source.fault):
            found.append(account_source)
    return found


def _setting_values(model: BaseModel) -> dict[str, Any]:
    """Return the settings that a model holds; an empty text counts as unset."""
    fields = Settings.model_fields.keys() & type(model).model_fields.keys()
    values = {name: getattr(model, name) for name in sorted(fields)}
    return {name: value for name, value in values.items() if value not in _EMPTY_VALUES}
