"""What every table of settings has in common: immutable, closed to unknown keys, and silent about what it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator


class Section(BaseModel):
    """A table of settings. Values cannot be changed after loading; a reload makes a new tree."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,  # TOML can write nan and inf; no setting means anything by them
        hide_input_in_errors=True,  # the input may be a key or a password
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic reads `true` as 1, which turns a slip of the pen into a limit of one."""
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("true and false are not numbers or texts")
        return value


def _with_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


LocalPath = Annotated[Path, AfterValidator(_with_home)]
"""A path on this machine; a leading `~` stands for the home directory."""


def _fit_for_a_header(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("it holds a space, a line break or a character beyond ASCII")
    return secret


HeaderSecret = Annotated[SecretStr, AfterValidator(_fit_for_a_header)]
"""A key that travels in an HTTP header; one that cannot would be quoted in the HTTP library's complaint."""
