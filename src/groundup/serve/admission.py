"""Access to a server on one's own machine: who is admitted, size limits, and what pages may do.

Nothing here loads torch: pages are shown before a model is loaded.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from groundup.errors import shorten
from groundup.report.page import script_page
from groundup.runs.console import printable, say

# A conversation of a million tokens has about four megabytes.
_MAX_BYTES, _BODY_SECONDS = 8 * 2**20, 60
# A character of a form may take twelve bytes; a stage has up to a hundred settings.
_FORM_BYTES, _FORM_FIELDS = 2**18, 200
# Headers that belong to these statuses (RFC 9110, 11.6.1; RFC 6585, 4).
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}
_PORT = re.compile(r":\d*$")


class BadRequest(Exception):
    """A refused request: the reason, the field it is about, OpenAI's code and the status."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status

    def to_json(self) -> dict[str, Any]:
        return refused(str(self), self.param, self.code)


@dataclass(frozen=True)
class Admission:
    """Who may use a server.

    With an `api_key`, every keyed address requires it. In a browser, pages of `allow_origins` may
    use the server, and no others ("*": all). `hosts` are the names of this machine; if the server
    `is_local`, a request must name one of them.
    """

    hosts: Sequence[str] = ()
    is_local: bool = True
    api_key: str | None = None
    allow_origins: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        """Whether it listens beyond this machine without a key, so that anyone may use it."""
        return not self.is_local and self.api_key is None

    def admit(self, request: Request, *, keyed: bool) -> None:
        """Raise BadRequest for a request that is not admitted."""
        place = request.headers.get("host", "")
        host = _PORT.sub("", place).strip("[]").lower()
        # A foreign name may resolve to this machine, and a page under that name could then read
        # everything that needs no key (DNS rebinding).
        is_own = host in self.hosts or (not self.is_local and _is_address(host))
        if not is_own and (self.is_local or self.api_key is None):
            known = ", ".join(self.hosts)
            more = "" if self.is_local else ", or an address; --api-key admits other names"
            raise BadRequest(f"host={shorten(host)} must be one of {known}{more}", status=403)
        # A browser sends the origin of the page that makes a request. Our own pages have a name of
        # this machine, or no origin. With a key, any name will do, because a page under a rebound
        # name has no key. A proxy may have taken the s off https.
        origin = request.headers.get("origin")
        is_known = is_own or (keyed and self.api_key is not None)
        own = {f"http://{place}", f"https://{place}"} if is_known else set[str]()
        if origin is None and _is_cross_site_part(request):
            origin = "another site"
        if origin is not None and not {origin, "*"} & (own | {*self.allow_origins}):
            raise BadRequest(
                f"pages of {shorten(origin)} are not admitted; serve's --allow-origins admits them",
                status=403,
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
    """The key in a request: a program's (Bearer), or the password that a browser asked for."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Headers are decoded as Latin-1, whatever bytes they are.
    sent = given.strip().encode("latin-1")
    if scheme.lower() == "bearer":
        return sent
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(sent, validate=True).partition(b":")[2].strip()
    except ValueError:
        return None


def _is_cross_site_part(request: Request) -> bool:
    """Whether another site's page requests a part such as an image, without an origin.

    Following a link from another site opens a page of its own.
    """
    sent = request.headers
    return sent.get("sec-fetch-site") == "cross-site" and sent.get("sec-fetch-dest") != "document"


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


async def read_body(request: Request, most: int = _MAX_BYTES) -> bytes:
    """The body of a request, of at most `most` bytes. Raises BadRequest."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    said = f"the body has more than {most:,} bytes; send less"
                    raise BadRequest(said, status=413)
    except TimeoutError:
        said = f"the body did not come within {_BODY_SECONDS} seconds"
        raise BadRequest(said, status=408) from None
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that one of our own pages has sent, with \\n at the end of each line.

    Raises BadRequest.
    """
    # Browsers send a form with the origin of its page, and `admit` refuses other origins. A browser
    # that sends no origin, as none does today, would at least say that the form is cross-site.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise BadRequest("forms of other sites' pages are not accepted", status=403)
    body = (await read_body(request, _FORM_BYTES)).decode("utf-8", errors="replace")
    try:
        found = parse_qs(body, keep_blank_values=True, max_num_fields=_FORM_FIELDS)
    except ValueError:
        raise BadRequest(f"the form has more than {_FORM_FIELDS} fields") from None
    # Browsers end lines with \r\n.
    return {
        name: values[0].replace("\r\n", "\n").replace("\r", "\n") for name, values in found.items()
    }


# Refusals, in OpenAI's form.


def refused(
    message: str,
    param: str | None = None,
    code: str | None = None,
    type: str = "invalid_request_error",
) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class JSON(JSONResponse):
    def render(self, content: Any) -> bytes:
        return encoded(content)


def encoded(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, which a model may write into a call, can only be encoded as an escape.
    return text.encode(errors="backslashreplace")


def refusal(status: int, said: Mapping[str, Any]) -> Response:
    """A refusal as a response, which is also printed in the terminal."""
    log(f"{status}, {printable(said['error']['message'])}")
    return JSON(said, status, headers=_HEADERS.get(status))


def security_headers(**more: str) -> dict[str, str]:
    """The headers of a page with an inline style that may do nothing but what is named.

    It cannot be framed, and browsers do not guess its content type.
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
    """The page to talk with the models of this server; `home` is where it links back to.

    It runs and fetches only what is in it and on this server.
    """
    headers = security_headers(script_src="'unsafe-inline'", connect_src="'self'")
    return HTMLResponse(script_page("chat.html.jinja", None, home=home), headers=headers)


def log(what: str) -> None:
    """Print in the terminal what was done or refused."""
    # Requests are answered even if the terminal is gone or the disk is full.
    with suppress(Exception):
        say(f"{time.strftime('%H:%M:%S')}  {what}")
