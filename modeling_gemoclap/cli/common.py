"""What the commands of `gemoclap` share: the app, options, and the report of failures."""

from __future__ import annotations

import sys
from functools import wraps
from typing import Annotated

import typer

from ..command_line.failures import run_main

app = typer.Typer(
    name="gemoclap",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Recognise emotions in speech: classify recordings, train and evaluate models, publish them.\n\n"
    "Start with: gemoclap predict RECORDING",
)

Recording = Annotated[
    list[str], typer.Argument(metavar="RECORDING...", help="Audio files, folders with audio files, or - for stdin.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="base or compact (included), a folder, or a name on the Hub.")
]
Checkpoint = Annotated[
    str, typer.Argument(metavar="MODEL", help="base or compact (included), a folder, or a name on the Hub.")
]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a model on the Hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU if there is one.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Recordings that are processed together.")]
Labels = Annotated[
    str | None,
    typer.Option(help="Words to choose from, for example angry,calm,sad; default: the emotions of the model."),
]
Template = Annotated[
    list[str] | None,
    typer.Option(help="Prompt with {}, for example 'a {} voice'; may be repeated; default: those of the model."),
]
RejectBelow = Annotated[
    float | None,
    typer.Option(help="Answer 'none of these' below this score, between 0 and 1; default: never."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no hints.")]


def command(body):
    """A command whose failures are reported in one sentence, and whose result is the exit status."""

    @wraps(body)
    def run(*args, **kwargs) -> None:
        status = None

        def main(argv: list[str]) -> None:
            nonlocal status
            status = body(*args, **kwargs)

        run_main(f"gemoclap {body.__name__.replace('_', '-')}", main)
        if status:
            raise typer.Exit(status)

    return app.command(no_args_is_help="recordings" in body.__annotations__)(run)


def show_no_loading(quiet: bool) -> None:
    """Show no progress of the loading of weights with `--quiet` or without a terminal."""
    if quiet or not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
