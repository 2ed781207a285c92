"""`groundup serve`: models behind OpenAI's interface, for any program that speaks it.

    groundup serve quickstart
    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")

It listens on this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections.abc import Sequence

from groundup.errors import UserError, installing
from groundup.generation.engine import BATCH_SIZE
from groundup.runs.console import say
from groundup.serve.worker import WAITING, Served

HOST, PORT = "127.0.0.1", 8000
# Seconds that running answers have to end after Ctrl-C.
_GRACE = 3


def require_server() -> None:
    """Raise `UserError` where what serves is not installed."""
    try:
        import starlette
        import uvicorn
    except ImportError:
        raise UserError(f"groundup serve needs a web server; run {installing('serve')}") from None
    del starlette, uvicorn


def listening(host: str = HOST, port: int = PORT) -> socket.socket:
    """A socket at that address, before models are loaded for it; port 0 is any that is free.

    Raises `UserError` for an address that is taken, or that this machine does not have.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(
            f"--host={host!r} is no address of this machine; try {HOST}, or 0.0.0.0 for all"
        ) from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        why = {
            errno.EADDRINUSE: f"--port={port} is taken by another program; "
            "try another one, or 0 for any that is free",
            errno.EACCES: f"--port={port} is for the system's own programs; try {PORT}",
        }
        other = f"--host={host!r} is no address of this machine; try {HOST}, or 0.0.0.0 for all"
        raise UserError(why.get(error.errno or 0, other)) from None
    return found


def serve(
    models: Sequence[Served],
    at: socket.socket,
    *,
    batch_size: int = BATCH_SIZE,
    most_waiting: int = WAITING,
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> None:
    """Answer at that socket until Ctrl-C."""
    import uvicorn

    from groundup.serve.api import API

    host, port = at.getsockname()[:2]
    is_local = ipaddress.ip_address(host).is_loopback
    api = API(
        models,
        batch_size=batch_size,
        most_waiting=most_waiting,
        api_key=api_key,
        allow_origins=allow_origins,
        allow_hosts=("localhost", "127.0.0.1", "::1", host) if is_local else (),
    )
    _tell(models, f"http://{f'[{host}]' if ':' in host else host}:{port}")
    if not is_local and api_key is None:
        say("Whoever reaches this machine can use it; --api-key asks for a key.")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        api.app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run(sockets=[at])


def _tell(models: Sequence[Served], address: str) -> None:
    for one in models:
        say(f"Served:      {one.name}, {one.model.config.parameters / 1e6:,.1f} million parameters")
    say(f"Talk:        {address} in a browser")
    say(f"Programs:    {address}/v1, in OpenAI's interface")
    body = '{"messages": [{"role": "user", "content": "Hello"}]}'
    if len(models) > 1:
        body = f'{{"model": "{models[0].name}", {body[1:]}'
    say(f"             curl {address}/v1/chat/completions -d '{body}'")
    say("Ctrl-C stops it.")
