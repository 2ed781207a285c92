"""`groundup serve`: models behind OpenAI's interface, for any program that speaks it.

    groundup serve quickstart
    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")

It listens only on this machine unless --host says otherwise.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import shlex
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError, installing
from groundup.runs.console import printable, say

if TYPE_CHECKING:
    from groundup.serve.admission import Admission
    from groundup.serve.worker import Served

# Seconds that running answers have to finish after Ctrl-C.
_GRACE = 3
_MAX_CONNECTIONS = 1000


def require_server(command: str) -> None:
    """Raise `UserError` if the packages of the web server are not installed."""
    try:
        import starlette
        import uvicorn
    except ImportError:
        raise UserError(
            f"groundup {command} needs a web server; run {installing('serve')}"
        ) from None
    del starlette, uvicorn


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address, opened before models are loaded for it; port 0 is any free one.

    Raises `UserError` for an address that is taken, or that this machine does not have.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(
            f"--host={host!r} is no address of this machine; try 127.0.0.1, or 0.0.0.0 for all"
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
            errno.EACCES: f"--port={port} is for the system's own programs; try 8000",
        }
        other = f"--host={host!r} is no address of this machine; try 127.0.0.1, or 0.0.0.0 for all"
        raise UserError(why.get(error.errno or 0, other)) from None
    return found


def serve(
    models: Sequence[Served],
    at: socket.socket,
    given_host: str,
    *,
    batch_size: int,
    waiting: int,
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> None:
    """Answer at that socket until Ctrl-C; `given_host` is the host that the user named."""
    from groundup.serve.api import API
    from groundup.serve.models import Loaded

    access = admission(at, given_host, api_key, allow_origins)
    api = API(Loaded(models), access, batch_size=batch_size, waiting=waiting)
    _tell(models, address(at))
    answer(api.app, at, access, api.stop)


def admission(
    at: socket.socket,
    given_host: str,
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> Admission:
    """Who may use the server at that socket; a local one only by the names of this machine."""
    from groundup.serve.admission import Admission

    host = at.getsockname()[0]
    found = ipaddress.ip_address(host)
    own = socket.gethostname()
    names = {"localhost", "127.0.0.1", "::1", host, given_host, own, f"{own}.local"}
    return Admission(
        hosts=sorted(one.lower() for one in names),
        is_local=(getattr(found, "ipv4_mapped", None) or found).is_loopback,
        api_key=api_key,
        allow_origins=allow_origins,
    )


def address(at: socket.socket) -> str:
    """The address at which a browser on this machine reaches a socket."""
    host, port = at.getsockname()[:2]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"


def answer(
    app: Any, at: socket.socket, access: Admission, stop: Callable[[], Awaitable[None]]
) -> None:
    """Run an ASGI application at that socket until Ctrl-C; then `stop` ends its work."""
    import uvicorn

    if access.is_open:
        say("Anyone who can reach this machine can use it; --api-key requires a key.")
    say("Ctrl-C stops it.")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=_most_connections(),
    )

    class Server(uvicorn.Server):
        """Stops generation before it waits for open connections."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await stop()
            await super().shutdown(sockets)

    Server(config).run(sockets=[at])


def _most_connections() -> int:
    """The connections that the limit on open files allows, next to other open files."""
    try:
        import resource
    except ImportError:  # not on Windows
        return _MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft < 0 else max(16, min(_MAX_CONNECTIONS, soft // 2))


def _tell(models: Sequence[Served], at: str) -> None:
    for one in models:
        size = f"{one.model.config.parameters / 1e6:,.1f} million parameters"
        say(f"Served:      {printable(one.name)}, {size}")
    say(f"Talk:        {at} in a browser")
    say(f"Programs:    {at}/v1, in OpenAI's interface")
    body = '{"messages": [{"role": "user", "content": "Hello"}]}'
    if len(models) > 1:
        body = f'{{"model": {json.dumps(models[0].name)}, {body[1:]}'
    say(f"             curl {at}/v1/chat/completions -d {shlex.quote(body)}")
