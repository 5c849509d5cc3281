"""Where a Milvus collection is, and the one connection that a process has to it."""

import logging
import os
import re
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from training.errors import BadValue, Busy, FC7Error, NotReady

TOKEN_VARIABLE: Final = "FC7_MILVUS_TOKEN"  # noqa: S105  its name
STORE_VARIABLE: Final = "FC7_STORE"  # the setting `store` of a build
PATIENCE_S: Final = 60.0  # for an answer
_CONNECT_S: Final = 10.0
_SCHEMES: Final = {"milvus": "http", "milvus+tls": "https"}
_PORT: Final = 19530
_FORM: Final = "milvus://host:port, milvus+tls://host:port or a path that ends in .db"
# milvus-lite's own rule
_FILE_NAME: Final = re.compile(r"[a-zA-Z0-9.\-_]{1,36}")


@dataclass(frozen=True)
class Address:
    """A Milvus server, or a local file that milvus-lite serves."""

    shown: str  # as it is recorded and shown: without a token
    uri: str = field(repr=False)
    token: str = field(repr=False)
    database: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a local file, which one process can have open at a time."""
        return self.uri.endswith(".db")


def parse(text: str) -> Address:
    """`milvus://[user:password@]host[:port][/database]`, `milvus+tls://...`, or the path of a local file, which ends in .db.

    A token that is not in the address is taken from the environment variable FC7_MILVUS_TOKEN. Raises BadValue.
    """
    if "://" not in text:
        return _file(text)
    try:
        parts = urlsplit(text)
        port = parts.port or _PORT
    except ValueError:
        raise BadValue("store", _without_token(text), _FORM) from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
        raise BadValue("store", _without_token(text), _FORM)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    database = parts.path.strip("/")
    address = f"{host}:{port}" + (f"/{database}" if database else "")
    token = unquote(parts.netloc.rpartition("@")[0]) or os.environ.get(TOKEN_VARIABLE, "")
    return Address(f"{parts.scheme}://{address}", f"{_SCHEMES[parts.scheme]}://{host}:{port}", token, database)


def parse_recorded(text: str) -> Address:
    """The address in a manifest, which whoever made the index chose: no token goes there by itself.

    It goes where the operator's own FC7_STORE names the same address, with what that says or FC7_MILVUS_TOKEN. Raises BadValue,
    and NotReady for a file that is not there.
    """
    recorded = parse(text)
    if recorded.is_file:
        if not Path(recorded.uri).is_file():
            raise NotReady(f"the store {recorded.shown} of the index is not there")
        return recorded
    own = os.environ.get(STORE_VARIABLE, "")
    operator = parse(own) if own else None
    if operator is not None and (operator.uri, operator.database) == (recorded.uri, recorded.database):
        return operator
    return replace(recorded, token="")


def _file(text: str) -> Address:
    path = Path(text).absolute()
    if path.suffix != ".db" or not _FILE_NAME.fullmatch(path.name):
        raise BadValue("store", text, f"{_FORM}; a file's name has at most 36 letters, digits, dots, - and _")
    if not path.parent.is_dir():
        raise NotReady(f"{path.parent} is not a folder; make it, or give the store another path")
    return Address(str(path), str(path), "")


def _without_token(text: str) -> str:
    return re.sub(r"//.*@", "//***@", text)


class _User:
    """Somebody who needs a connection for a while."""


class Connection:
    """A client of one address, shared by every store of it in this process and closed with the last of them.

    Every method raises NotReady where Milvus does not answer and FC7Error where it refuses, naming the address.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self._pymilvus = _import(address)
        try:
            self._client = self._pymilvus.MilvusClient(
                uri=address.uri, token=address.token, db_name=address.database, timeout=_CONNECT_S
            )
        except self._pymilvus.MilvusException as error:
            if address.is_file:
                reason = "another program has it open, or it is not a file of milvus-lite"
                raise Busy(f"{address.shown} cannot be opened: {reason}") from error
            raise self._silent(error) from error

    def call(self, method: str, **arguments: Any) -> Any:
        """A method of pymilvus.MilvusClient."""
        import grpc

        try:
            return getattr(self._client, method)(timeout=PATIENCE_S, **arguments)
        except grpc.RpcError as error:
            raise self._silent(error) from error
        except self._pymilvus.MilvusException as error:
            if isinstance(error.__cause__, grpc.RpcError):
                raise self._silent(error) from error
            raise FC7Error(f"Milvus at {self.address.shown} refuses {method}: {error.message}") from error

    def close(self) -> None:
        """Lets go of the connection, and ends the server of a local file."""
        self._client.close()
        if self.address.is_file:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.address.uri)

    def _silent(self, error: Exception) -> NotReady:
        reason = str(error).splitlines()[0]
        return NotReady(
            f"Milvus at {self.address.shown} does not answer ({reason}); start it, correct --store, or set {TOKEN_VARIABLE} "
            f"where it asks for a token, which goes to the address in {STORE_VARIABLE} or --store alone"
        )


# pymilvus shares a connection by itself, but neither it nor milvus-lite ends the server of a file when the last client closes
_open: dict[Address, Connection] = {}
_lock = threading.Lock()


def connect(address: Address, user: object) -> Connection:
    """The connection of this process to an address, made where there is none; `user` needs it until `disconnect`, or its end."""
    with _lock:
        connection = _open.get(address)
        if connection is None:
            connection = _open[address] = Connection(address)
        connection.users.add(user)
        return connection


@contextmanager
def connected(address: Address) -> Iterator[Connection]:
    """The connection of this process to an address, for a while. Raises NotReady, Busy or FC7Error like `connect`."""
    user = _User()
    connection = connect(address, user)
    try:
        yield connection
    finally:
        disconnect(connection, user)


def disconnect(connection: Connection, user: object) -> None:
    """Closes the connection where nobody else uses it. Again is harmless."""
    with _lock:
        connection.users.discard(user)
        if not connection.users and _open.get(connection.address) is connection:
            del _open[connection.address]
            connection.close()


def _import(address: Address) -> Any:
    try:
        if address.is_file:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # which milvus-lite 2.5.1 imports
                import milvus_lite.server_manager  # noqa: F401
        import pymilvus
    except ImportError as error:
        raise NotReady(f"the store {address.shown} needs the extra milvus ({error}): pip install -e '.[milvus]'") from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it logs it raises too
    return pymilvus
