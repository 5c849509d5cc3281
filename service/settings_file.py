"""Settings from a TOML file that `FC7_SETTINGS` names: below the environment, above the defaults, one key a setting."""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from training.errors import BadValue
from training.program import FILE_VARIABLE, Settings


class FileSettings(Settings):
    """Base of settings that a file may hold too; a key of it that is no setting is an error."""

    model_config = SettingsConfigDict(extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Puts the file last, so that everything else wins over it."""
        return (*super().settings_customise_sources(settings_cls, *sources, **named), _SettingsFile(settings_cls))


class _SettingsFile(PydanticBaseSettingsSource):
    """The whole of the file, if one is named. Raises BadValue for a file that cannot be read, or is not TOML."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the file is read as a whole, so that keys that are no fields come to light

    def __call__(self) -> dict[str, Any]:
        name = os.environ.get(FILE_VARIABLE)
        if not name:
            return {}
        try:
            return tomllib.loads(Path(name).read_text("utf-8"))
        except OSError as error:
            raise BadValue(FILE_VARIABLE, name, f"a file that can be read ({error.strerror})") from error
        except ValueError as error:
            raise BadValue(FILE_VARIABLE, name, f"a file in TOML ({error})") from error
