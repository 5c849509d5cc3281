"""`python -m service`: serves the model and the index in the default folders, or in those given."""

import asyncio
import gc
import socket
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn

from service import logs
from service.app import create_app
from service.http11 import Http11
from service.middleware.admission import Gate
from service.settings import ServiceSettings
from training.errors import BadValue, FC7Error
from training.program import keep_freed_memory, run_program

KEEP_ALIVE_S: Final = 75  # longer than proxies keep idle connections, so that none sends into one that is being closed


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
    logs.configure()
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen()
        except socket.gaierror as error:
            raise BadValue("host", settings.host, f"an address of this machine ({error.strerror})") from error
        except OSError as error:
            raise BadValue("port", settings.port, f"free on {settings.host} ({error.strerror})") from error
        port = listener.getsockname()[1]
        host = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            http=Http11,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        with suppress(KeyboardInterrupt):
            server = _Server(config, f"http://{host}:{port}", app.state.gate, settings.stop_s)
            server.run(sockets=[listener])
            if not server.started:
                raise FC7Error("the service did not start; its log says why")


if __name__ == "__main__":
    run_program(ServiceSettings, main)
