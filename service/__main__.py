"""`python -m service`: serves the model and the index in the default folders, or in those given."""

import asyncio
import gc
import logging
import resource
import socket
import sys
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Final

import uvicorn

from service import logs
from service.app import create_app
from service.connections import Connection, Connections
from service.middleware.admission import Gate
from service.settings import ServiceSettings, local_url
from training.errors import BadValue, FC7Error
from training.program import keep_freed_memory, run_program

KEEP_ALIVE_S: Final = 75  # longer than proxies keep idle connections, so that none sends into one that is being closed

SWITCH_S: Final = 1e-3  # for which the event loop may wait for a thread that computes, each time that it turns
SEND_BUFFER: Final = 2**18  # bytes of an answer that the kernel takes of each connection; it would take megabytes
FILES_KEPT: Final = 256  # descriptors for all but connections, and the photographs that are sent over them
_log: Final = logging.getLogger("fc7.service")


class _Server(uvicorn.Server):
    """Says where it listens and what to try. Told to stop, it lets what has begun finish and answers 503 to what comes."""

    def __init__(self, config: uvicorn.Config, address: str, gate: Gate, stop_s: float) -> None:
        super().__init__(config)
        self._address = address
        self._gate, self._stop_s = gate, stop_s
        self._stopping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if not self.started:
            return
        # what is loaded stays; looking through all of it for garbage would hold up every request for a tenth of a second
        gc.collect()
        gc.freeze()
        print(f"FC7 answers on {self._address}: open it in a browser, or try", flush=True)
        print(f"  curl -X POST '{self._address}/neighbors?id=0&k=5'", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to stop, the second ends at once."""
        if self._stopping or not self.started:
            super().handle_exit(sig, frame)
        else:
            self._gate.close()
            self._loop.call_soon_threadsafe(self._begin_to_stop)

    def _begin_to_stop(self) -> None:
        self._stopping = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gate.emptied(), self._stop_s)
        self.should_exit = True


def main(settings: ServiceSettings) -> None:
    """Serves until told to stop; running requests are finished first. Raises BadValue for an address it cannot listen on."""
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    logs.configure()
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen()
        except socket.gaierror as error:
            raise BadValue("host", settings.host, f"an address of this machine ({error.strerror})") from error
        except OSError as error:
            raise BadValue("port", settings.port, f"free on {settings.host} ({error.strerror})") from error
        port = listener.getsockname()[1]
        app = create_app(settings)
        connections = Connections(settings, _most_connections(settings.max_connections), app.state.metrics)
        config = uvicorn.Config(
            app,
            http=partial(Connection, connections),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        with suppress(KeyboardInterrupt):
            server = _Server(config, local_url(settings.host, port), app.state.gate, settings.stop_s)
            server.run(sockets=[listener])
            if not server.started:
                raise FC7Error("the service did not start; its log says why")


def _most_connections(wanted: int) -> int:
    """As many as wanted, or as the files that this process may open are enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + FILES_KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            most = max(1, (soft - FILES_KEPT) // 2)
            _log.warning("max_connections=%d needs %d open files, and %d are allowed: it is %d", wanted, needed, soft, most)
            return most
    return wanted


if __name__ == "__main__":
    run_program(ServiceSettings, main)
