"""The command `gemoclap`, also started by `python -m modeling_gemoclap`.

Each command calls the library, which is imported when the command runs: torch and transformers take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from ..command_line.failures import run_main
from ..command_line.hints import hint, next_command
from ..version import __version__
from .common import app

# isort: split
# The order of the imports is the order of the commands in the help.
from .recordings import embed, predict

# isort: split
from .timeline import listen, timeline

# isort: split
from .search import index, search

# isort: split
from .service import serve

# isort: split
from .page import page

# isort: split
from .checkpoints import card, demo_corpus, doctor, info, push

# isort: split
from .export import export

# isort: split
from .training_clips import training_clips

__all__ = ["app", "card", "demo_corpus", "doctor", "embed", "export", "index", "info", "listen", "main", "page"]
__all__ += ["predict", "push", "search", "serve", "timeline", "training_clips"]

# Commands with a parser of their own, which `train.py`, `evaluate.py` and `grid.py` start too.
SCRIPTS = {"train": ".runs.train", "evaluate": ".evaluation.command", "grid": ".runs.grid"}
COMMANDS = SCRIPTS | {"pretrained": ".pretrained.command", "compress": ".compression.command"}
HELP = {
    "train": "Train a model on a corpus, by a recipe such as compact.",
    "evaluate": "Evaluate a checkpoint on a corpus, and write a report.",
    "grid": "Train and evaluate every cell of a table of settings.",
    "pretrained": "Fetch Whisper-base and all-MiniLM-L6-v2, for recipes with pretrained encoders.",
    "compress": "Make a smaller copy of a checkpoint: half precision, fewer word pieces.",
}


def _forward(name: str) -> None:
    """Add a command that hands its options to a parser of its own."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(name, help=HELP[name], context_settings=settings, add_help_option=False)
    def forward(context: typer.Context) -> None:
        def main(argv: list[str]) -> None:
            results = import_module(COMMANDS[name], __package__.rpartition(".")[0]).main(list(context.args))
            if not {"-h", "--help"} & {*context.args} and (command := next_command(name, context.args, results)):
                hint(command)

        run_main(f"gemoclap {name}", main)


for _name in COMMANDS:
    _forward(_name)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"gemoclap {__version__}")
        raise typer.Exit()


@app.callback()
def _version(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Options before a command."""


def main(argv: list[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: The command line without the program name; None: that of this process.
    """
    app(argv, prog_name="gemoclap")
