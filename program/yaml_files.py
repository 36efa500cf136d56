"""YAML that people write: read, or what is wrong with it in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from retrieval.errors import ConfigurationError


def read_yaml(file: Path, if_missing: str) -> Any:
    """What the file says; None where it says nothing.

    Raises:
        ConfigurationError: if it cannot be read or is no YAML, with the line; if it is not there, `if_missing`.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(if_missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{file}, line {line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
