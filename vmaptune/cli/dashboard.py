"""`vmaptune dashboard`."""

from __future__ import annotations

import click


@click.command("dashboard")
@click.argument("folder", metavar="[DIR]", required=False, default="runs", type=click.Path(file_okay=False))
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any that is free.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. Any but this machine's own asks visitors for a token, and sends everything unencrypted.",
)
@click.option("--token", help="What visitors must know; made up unless given where others can come. 16 characters or more.")
@click.option("--open", "browse", is_flag=True, help="Open it in your browser.")
def command(folder: str, port: int, host: str, token: str | None, browse: bool) -> None:
    """Show the runs in a folder on a local web page, live while they train.

    The folder is runs/ unless given, and nothing in it is changed. To look from elsewhere,
    `ssh -L 8080:127.0.0.1:8080 HOST` is safer than --host. On a machine that you share, others can open it too: give a
    --token.

    \b
    vmaptune dashboard
    vmaptune dashboard experiments --port 8081 --open
    vmaptune dashboard --host 0.0.0.0
    """
    from vmaptune.dashboard.serving import serve

    def announce(address: str) -> None:
        click.echo(f"The runs in {folder}: {address}\nCtrl-C ends it.")

    serve(folder, host=host, port=port, token=token, announce=announce, browse=browse)
