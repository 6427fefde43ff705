"""`atoll serve`: the control plane, a page over one workspace."""

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.show import progress


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    workspace: Annotated[
        Path, typer.Argument(metavar="WORKSPACE", help="The folder with your runs and files.")
    ] = Path(),
    host: Annotated[str, typer.Option("--host", metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")
    ] = 8090,
    host_name: Annotated[
        list[str] | None, typer.Option("--host-name", metavar="NAME", help="Another host name that it answers to.")
    ] = None,
    tls: Annotated[
        str | None, typer.Option("--tls", metavar="CERT,KEY", help="Serve https; `self-signed` makes a pair.")
    ] = None,
    behind_proxy: Annotated[
        str | None, typer.Option("--behind-proxy", metavar="ADDRESS", help="A proxy there speaks TLS for us.")
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option("--catalog", metavar="ADDRESS", help="sqlite:FILE or mongodb://...; or ATOLL_CATALOG."),
    ] = None,
) -> None:
    """A page for what the terminal does, over one workspace; prints the link that lets you in.

    Example: atoll serve ~/atoll --port 8090
    """
    from atoll.web.serving import Serving, run_server

    def say(line: str) -> None:
        progress.print(line, soft_wrap=True)

    serving = Serving(
        workspace=workspace,
        host=host,
        port=port,
        host_names=tuple(host_name or ()),
        tls=tls,
        behind_proxy=behind_proxy,
        catalog=catalog,
    )
    run_server(serving, say=say)
