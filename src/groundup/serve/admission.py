"""Who may ask a server on one's own machine, how much, and what its pages may do.

Nothing here loads torch: pages are shown before a model is.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from groundup.errors import shorten
from groundup.report.page import drawn_html
from groundup.runs.console import say

# A conversation of a million tokens has some four megabytes.
_MOST_BYTES, _BODY_SECONDS = 8 * 2**20, 60
_PORT = re.compile(r":\d*$")


class BadRequest(Exception):
    """A request that is not answered: why, the field it is about, OpenAI's code and the status."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


@dataclass(frozen=True)
class Admission:
    """Who may ask.

    With an `api_key` all that is keyed asks for it. Pages of `allow_origins` may use the server in
    a browser, and no others ("*": all). `hosts` are the names of this machine; where the server
    `is_local` a request must name one of them.
    """

    hosts: Sequence[str] = ()
    is_local: bool = True
    api_key: str | None = None
    allow_origins: Sequence[str] = ()

    def admit(self, request: Request, *, keyed: bool) -> None:
        """Raise BadRequest for a request that is none of theirs."""
        place = request.headers.get("host", "")
        host = _PORT.sub("", place).strip("[]").lower()
        if self.is_local and host not in self.hosts:
            known = ", ".join(self.hosts)
            raise BadRequest(f"host={shorten(host)} must be one of {known}", status=403)
        # A browser says whose page it is that asks. Our own has a name of this machine, or none: a
        # stranger's name may lead here (DNS rebinding). A proxy may have taken the s off https.
        origin, own = request.headers.get("origin"), set[str]()
        if host in self.hosts or _is_address(host):
            own = {f"http://{place}", f"https://{place}"}
        if origin is not None and not {origin, "*"} & (own | {*self.allow_origins}):
            raise BadRequest(
                f"pages of {shorten(origin)} may not ask; --allow-origins admits them", status=403
            )
        if not keyed or self.api_key is None:
            return
        sent, key = _key_of(request), self.api_key.strip().encode()
        if sent is None or not secrets.compare_digest(sent, key):
            raise BadRequest(
                "the API key is missing or wrong; send the one that the server was started with "
                "(--api-key) as Authorization: Bearer KEY",
                code="invalid_api_key",
                status=401,
            )


def _key_of(request: Request) -> bytes | None:
    """The key that came along: a program's (Bearer), or the password that a browser asked for."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Headers are read as Latin-1, whatever bytes they are.
    sent = given.strip().encode("latin-1")
    if scheme.lower() == "bearer":
        return sent
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(sent, validate=True).partition(b":")[2].strip()
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


async def read_body(request: Request) -> bytes:
    """The body of a request, up to what any conversation may have. Raises BadRequest."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BYTES:
                    said = f"the body has more than {_MOST_BYTES:,} bytes; send less"
                    raise BadRequest(said, status=413)
    except TimeoutError:
        said = f"the body did not come within {_BODY_SECONDS} seconds"
        raise BadRequest(said, status=408) from None
    return bytes(body)


def allowing(**more: str) -> dict[str, str]:
    """The headers of a page that has a style of its own, and may do nothing but what is named.

    It stands in no other page, and what is on it is what its address says.
    """
    rules = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    } | {name.replace("_", "-"): value for name, value in more.items()}
    policy = "; ".join(f"{name} {value}".strip() for name, value in rules.items())
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}


def talk_page(home: str | None = None) -> Response:
    """The page to talk with the models of this server; `home` is where it leads back to.

    It runs and fetches nothing but what is in it and on this server.
    """
    headers = allowing(script_src="'unsafe-inline'", connect_src="'self'")
    return HTMLResponse(drawn_html("chat.html.jinja", None, home=home), headers=headers)


def tell(what: str) -> None:
    """Say at the terminal what was done or refused."""
    # Where nobody reads it, or the disk is full, answers go on.
    with suppress(Exception):
        say(f"{time.strftime('%H:%M:%S')}  {what}")
