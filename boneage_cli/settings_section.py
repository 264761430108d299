"""A table of a settings file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A table of a settings file; unknown keys are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _not_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would accept true as the number 1.
        may_be_boolean = cls.model_fields[str(info.field_name)].annotation is bool
        if isinstance(value, bool) and not may_be_boolean:
            raise ValueError(f"{str(value).lower()} is not allowed here")
        return value
