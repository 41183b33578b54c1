"""Serve the page on this machine's loopback address until Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn

from aurefine.errors import InputError
from aurefine.project.project import Project
from aurefine.web.app import create_app
from aurefine.web.guard import Session

ADDRESS = "127.0.0.1"  # never another: who is elsewhere comes through ssh
FIRST_PORT, LAST_PORT = 8770, 8799
_REST = 0.5  # seconds between two looks of a server whether it is to end


def bind(port: int) -> socket.socket:
    """A listening socket on the loopback address: on `port`, or on the first free one (0). InputError where there is none."""
    for number in [port] if port else range(FIRST_PORT, LAST_PORT + 1):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, number))
            listener.listen()  # until then, another process may still take the same port
            return listener
        except (OSError, OverflowError):
            listener.close()
    raise InputError(f"--port {port}: it is in use or not allowed; choose another (1024 to 65535)" if port
                     else f"all ports from {FIRST_PORT} to {LAST_PORT} are in use; name another with --port")  # fmt: skip


def serve(root: str | Path, port: int = 0) -> int:
    """Serve the project in `root`, printing the address with its one-time token; returns 0 when it is stopped."""
    project = Project.open(Path(root).resolve())
    listener = bind(port)
    number = listener.getsockname()[1]

    def announce(token: str) -> None:
        print(f" For another browser: {address(number, token)}", flush=True)

    session = Session(announce)
    print(f" The project {project.root} is shown at\n\n     {address(number, session.token)}\n")
    print(f" From another machine: ssh -L {number}:localhost:{number} {socket.gethostname()}, then open the same address there.")
    print(" The address opens one browser, once. Ctrl-C ends the page; jobs that it has started go on.", flush=True)
    config = uvicorn.Config(create_app(project, session), log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2)
    try:
        _Quiet(config).run(sockets=[listener])
    except KeyboardInterrupt:
        print(" The page has ended.", file=sys.stderr)
    return 0


class _Quiet(uvicorn.Server):
    """Looks twice a second whether it is to end, uvicorn ten times: a page that nobody uses should cost nothing."""

    async def main_loop(self) -> None:
        """Until it is to end; what uvicorn does every ten turns is done as often as by itself."""
        tenths = 0
        while not await self.on_tick(tenths):
            await asyncio.sleep(_REST)
            tenths += round(10 * _REST)


def address(port: int, token: str) -> str:
    """The address that lets one browser in."""
    return f"http://localhost:{port}/?token={token}"
