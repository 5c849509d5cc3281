"""The settings of the service, checked at start."""

import os
import re
import tomllib
import unicodedata
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from training.errors import BadValue
from training.images.preprocess import ImageLimits, MaxImageBytes, MaxImagePixels
from training.program import FILE_VARIABLE, Settings

_ORIGIN: Final = re.compile(r"https?://[\w.\-\[\]:]+")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_ROOT_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
_LINK: Final = re.compile(r"[a-z]+://")
_LARGEST_KEY_BYTES: Final = 2**16


class ServiceSettings(Settings):
    """Serve classification, neighbours and first-layer filters over HTTP.

    A setting comes from the command line, else from FC7_* in the environment (FC7_PORT for --port), else from the TOML file that
    FC7_SETTINGS names (port = 8000), else it is as shown.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m service", extra="forbid")

    model: Path = Field(Path("var/model"), description="model folder")
    index: Path = Field(Path("var/index"), description="index folder, made with that model")
    claims: Path | None = Field(None, description="folder that training.claims wrote; else the results shipped are shown")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    max_request_bytes: int = Field(64 * 2**20, ge=1, description="largest request body, bytes")
    max_images: int = Field(32, ge=1, description="images a request")
    max_image_bytes: MaxImageBytes = ImageLimits().max_image_bytes
    max_image_pixels: MaxImagePixels = ImageLimits().max_image_pixels
    max_batch_size: int = Field(
        32, ge=1, le=1024, description="views that go through the network at once, and queries in one search"
    )
    max_wait_ms: float = Field(50, ge=0, le=1000, description="longest wait of a photograph for others to share its batch, ms")
    max_queue: int = Field(256, ge=1, description="photographs, and queries, that may wait; to others the answer is 503 at once")
    max_concurrent_requests: int = Field(128, ge=1, description="requests being answered; beyond that the answer is 503 at once")
    max_connections: int = Field(
        512, ge=1, description="connections; the longest idle makes room for a new one, else that is answered 503"
    )
    max_connections_per_client: int = Field(
        256, ge=1, description="connections from one address; behind a proxy as many as max_connections"
    )
    max_unread_bytes: int = Field(
        64 * 2**20,
        ge=1,
        description="answers that clients have not read yet, bytes in all; then the slowest reader is cut off",
    )
    stall_s: float = Field(
        10, gt=0, description="longest time of a request's head, and for which bodies and answers may stall, s"
    )
    min_bytes_per_s: int = Field(
        1024, ge=0, description="least rate at which a body comes and an answer is read, over stall_s, bytes a second"
    )
    deadline_ms: float = Field(10_000, gt=0, description="what is not answered in this time is answered 503, ms; not changes")
    stop_s: float = Field(30, ge=0, description="on SIGTERM, how long requests that have begun may take to finish, s")
    max_neighbors: int = Field(1000, ge=1, description="largest k of one request; pages by cursor go on from there")
    root_path: str = Field("", description="path that a proxy serves this below, as in /fc7")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="host names to answer to, as in fc7.example.org; empty: any, on a loopback address its own names alone",
    )
    search: Literal["auto", "exact", "code", "two-stage"] = Field(
        "auto", description="mode of a search that names none; auto picks exact or two-stage, and /info says why"
    )
    search_memory_bytes: int = Field(
        2**30, ge=0, description="memory that vectors may take up before auto searches in two stages"
    )
    api_key_file: Path | None = Field(None, description="file that holds the key, in place of api_key")
    api_key: SecretStr | None = Field(
        None,
        min_length=1,
        validate_default=True,
        description="key for POST /items, DELETE /items/{id} and POST /reload; without one nobody may change anything",
    )
    api_key_for_reads: bool = Field(False, description="whether the key is needed for everything but /healthz and /readyz")
    cors_origins: tuple[str, ...] = Field((), description="web pages of other origins that may ask, as in https://example.org")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Puts the file last, so that everything else wins over it."""
        return (*super().settings_customise_sources(settings_cls, *sources, **named), _SettingsFile(settings_cls))

    @field_validator("port", mode="before")
    @classmethod
    def _no_link(cls, port: object) -> object:
        if isinstance(port, str) and _LINK.match(port):
            raise ValueError(
                "a port, and not what Kubernetes and Docker set for a service that is named fc7 (give the service another name, "
                "or the pod enableServiceLinks: false)"
            )
        return port

    @field_validator("root_path")
    @classmethod
    def _normal_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and not _ROOT_PATH.fullmatch(path):
            raise ValueError("a path such as /fc7, of letters, digits and -._~")
        return path

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host) and not _is_number(host):
                raise ValueError("names or numbers of hosts such as fc7.example.org, without a port")
        return hosts

    @field_validator("api_key_file")
    @classmethod
    def _readable(cls, path: Path | None) -> Path | None:
        if path is not None:
            _key_in(path)
        return path

    @field_validator("api_key", mode="before")
    @classmethod
    def _from_file(cls, key: object, info: ValidationInfo) -> object:
        path = info.data.get("api_key_file")
        if path is None:
            return key
        if key is not None:
            raise ValueError("left out where api_key_file is given")
        return _key_in(path)

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        return key and SecretStr(_checked(key.get_secret_value()))

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("origins such as https://example.org, without a path")
        return origins

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.api_key_for_reads and self.api_key is None:
            raise ValueError("api_key_for_reads needs an api_key")
        return self

    def limits(self) -> ImageLimits:
        """What decoding one image may cost."""
        return ImageLimits.model_validate(self, from_attributes=True)


def is_loopback(host: str) -> bool:
    """Whether what listens on this address can be reached from this machine alone."""
    host = same_host(host)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_url(host: str, port: int) -> str:
    """Where this machine finds what listens there: on all addresses, which 0.0.0.0 and :: stand for, by that of loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(same_host(host), host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def same_host(host: str) -> str:
    """One spelling for all those of a name or a number, which may be in brackets; an IPv4 address in IPv6 is the former."""
    host = host.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    try:
        number = ip_address(host)
    except ValueError:
        return host
    return str((number.version == 6 and number.ipv4_mapped) or number)


def _is_number(host: str) -> bool:
    try:
        ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return True


def _key_in(path: Path) -> str:
    """The key that a file holds. Raises ValueError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_KEY_BYTES + 1)
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ValueError(f"a file that can be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError("a file in UTF-8") from error
    if len(data) > _LARGEST_KEY_BYTES:
        raise ValueError(f"a file of at most {_LARGEST_KEY_BYTES} bytes")
    return _checked(text)


def _checked(key: str) -> str:
    """A key as headers can carry it, without the newline that editors and `echo` put at its end. Raises ValueError."""
    key = key.rstrip("\r\n")
    if not key:
        raise ValueError("a key of at least 1 character")
    if key != key.strip():
        raise ValueError("a key without white space at its ends, which headers lose")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
        raise ValueError("a key without control characters, which headers cannot carry")
    return key


class _SettingsFile(PydanticBaseSettingsSource):
    """The whole of the file, if one is named. Raises BadValue for a file that cannot be read, or is not TOML.

    pydantic-settings' own source reads the file before `--help` is answered, and takes a file that is missing for an empty one.
    """

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
