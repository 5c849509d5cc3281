"""`python -m service`: serves the model and the index at the default places, or at those given."""

import logging
import socket
from contextlib import suppress

import uvicorn

from service.app import create_app
from service.settings import ServiceSettings
from training.errors import BadValue
from training.program import keep_freed_memory, run_program

GRACE_S = 30


class _Server(uvicorn.Server):
    """Says where it listens and what to try, once it does."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"FC7 answers on {self._address}: open it in a browser, or try", flush=True)
        print(f"  curl -X POST '{self._address}/neighbors?id=0&k=5'", flush=True)


def main(settings: ServiceSettings) -> None:
    """Serves until it is told to stop; running requests are finished first. Raises BadValue for a place it cannot listen on."""
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
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
        config = uvicorn.Config(create_app(settings), log_level="warning", timeout_graceful_shutdown=GRACE_S)
        with suppress(KeyboardInterrupt):
            _Server(config, f"http://{host}:{port}").run(sockets=[listener])


if __name__ == "__main__":
    run_program(ServiceSettings, main)
