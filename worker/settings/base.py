"""The base class of every table of settings: immutable, closed to unknown keys, and never quoting its input.

Also the annotated types that several tables share.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, SecretStr, ValidationInfo, field_validator

_SYNONYMS = {"warn": "warning"}
_BINARY_UNIT = re.compile(r"(?<=[\d\s])([KMGTPE])i$")


class Section(BaseModel):
    """A table of settings. Values cannot be changed after loading; a reload builds a new tree."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,  # TOML can express nan and inf; no setting has a use for them
        hide_input_in_errors=True,  # the input may be a key or a password
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic reads `true` as 1, which would turn a typing mistake into a limit of one."""
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("true and false are not numbers or texts")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _as_people_write_it(cls, value: Any, info: ValidationInfo) -> Any:
        """A choice in capitals, such as INFO, and a size with the units of Kubernetes, such as 64Mi."""
        if not isinstance(value, str) or info.field_name is None:
            return value
        kind = cls.model_fields[info.field_name].annotation
        if get_origin(kind) is Literal:
            written = value.strip().lower()
            return next((choice for choice in get_args(kind) if choice == _SYNONYMS.get(written, written)), value)
        if kind is ByteSize:
            return _BINARY_UNIT.sub(r"\1iB", value.strip())
        return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


LocalPath = Annotated[Path, AfterValidator(_expanded)]
"""A path on this machine; a leading `~` stands for the home directory."""


def _header_value(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("it holds a space, a line break or a character beyond ASCII")
    return secret


HeaderSecret = Annotated[SecretStr, AfterValidator(_header_value)]
"""A key that is sent in an HTTP header. An invalid one is refused here: the HTTP library's error would quote it."""
