"""The command line: ``dfit history show``, ``explain`` and ``clear``, as in `dfit.history`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from dfit.errors import DfitError
from dfit.history import clear, explain, show


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Fits nonlinear models to arrays larger than memory."""


@main.group()
def history() -> None:
    """What past fits cost, kept for the plans of later ones."""


@history.command("show")
@click.option("-n", default=20, show_default=True, help="How many fits.")
def show_runs(n: int) -> None:
    """List the last fits, the newest first."""
    with _told():
        click.echo(show(n))


@history.command("explain")
def explain_last() -> None:
    """Say what was predicted of the last fit, from what, and how good such predictions were."""
    with _told():
        click.echo(explain())


@history.command("clear")
def clear_all() -> None:
    """Remove all that you have kept."""
    with _told():
        count = clear()
        click.echo(f"removed {count} file{'s' * (count != 1)}")


@contextmanager
def _told() -> Iterator[None]:
    """Say dfit's errors as a command does, without a traceback."""
    try:
        yield
    except DfitError as error:
        raise click.ClickException(str(error)) from error
