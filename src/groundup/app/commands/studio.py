"""`studio`: web pages of everything that was trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from groundup.app.commands.options import ApiKey, Device, Host, Port, checked
from groundup.errors import UserError

if TYPE_CHECKING:
    from groundup.serve.worker import Served
    from groundup.studio.commands import Command


@checked
def studio(
    folder: Annotated[
        Path, Parameter(help="the folder whose runs are shown, up to six levels deep")
    ] = Path("."),
    /,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8001,
    api_key: ApiKey = None,
    device: Device = "cpu",
) -> None:
    """Show everything that was trained here, in a browser."""
    if not folder.is_dir():
        why = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"FOLDER={str(folder)!r} {why}; give a folder with runs in it, or none")
    from groundup.serve.server import listening, require_server

    require_server("studio")
    from groundup.studio.pages import look_links
    from groundup.studio.server import studio as show

    def open(name: str, at: Path) -> Served:
        from groundup.app.commands.serve import opened_models

        return opened_models(name, at, (), device)[0]

    def look(name: str, at: Path, text: str, as_message: bool) -> str:
        from groundup.app.xray import page

        links = look_links(folder, name, at)
        return page(at, text, name=name, chat=as_message, links=links)

    def commands() -> Mapping[str, Command]:
        from groundup.app.starting import commands

        return commands()

    with listening(host, port) as socket:
        show(folder, socket, host, api_key=api_key, open=open, look=look, commands=commands)
