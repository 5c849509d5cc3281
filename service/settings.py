"""The settings of the service, from `FC7_*` in the environment and the command line, checked at start."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from training.preprocess import ImageLimits
from training.program import Settings


class ServiceSettings(Settings):
    """Serve classification, neighbours and first-layer filters over HTTP."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service")

    model: Path = Field(Path("var/model"), description="model folder")
    index: Path = Field(Path("var/index"), description="index folder, made with that model")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    max_request_bytes: int = Field(64 * 2**20, ge=1, description="largest request body, bytes")
    max_images: int = Field(32, ge=1, description="images a request")
    max_image_bytes: int = Field(ImageLimits().max_image_bytes, ge=1, description="largest image, bytes")
    max_image_pixels: int = Field(ImageLimits().max_image_pixels, ge=1, description="largest image, width x height")
    max_neighbors: int = Field(1000, ge=1, description="largest k of one request; pages by cursor go on from there")
    search: Literal["auto", "exact", "code", "two-stage"] = Field(
        "auto", description="mode of a search that names none; auto picks exact or two-stage, and /info says why"
    )
    search_memory_bytes: int = Field(
        2**30, ge=0, description="memory that vectors may take up before auto searches in two stages"
    )
    api_key: SecretStr | None = Field(
        None, min_length=1, description="key for POST /items and DELETE /items/{id}; without one nobody may change the index"
    )

    def limits(self) -> ImageLimits:
        """What decoding one image may cost."""
        return ImageLimits(max_image_bytes=self.max_image_bytes, max_image_pixels=self.max_image_pixels)
