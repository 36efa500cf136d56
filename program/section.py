"""What every section of the settings is: fixed once read, and with no key that is not known."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the settings."""

    # Defaults are validated, too: 60 for a float is 60.0, as a file would have it, and runs of both are the same run.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
