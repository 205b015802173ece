"""The command `gemoclap`, also started by `python -m modeling_gemoclap`.

Each command calls the library, which is imported when the command runs: torch and transformers take seconds.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from enum import Enum
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from .command_line.failures import run_main, usage_errors
from .command_line.hints import hint, next_command, words_of_model
from .version import __version__

app = typer.Typer(
    name="gemoclap",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Recognise emotions in speech: classify recordings, train and evaluate models, publish them.\n\n"
    "Start with: gemoclap predict RECORDING",
)

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


class Format(str, Enum):
    """Formats of predictions."""

    table = "table"
    csv = "csv"
    jsonl = "jsonl"


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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no hints.")]


def _command(body):
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


def _show_no_loading(quiet: bool) -> None:
    """Show no progress of the loading of weights with `--quiet` or without a terminal."""
    if quiet or not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()


def _forward(name: str) -> None:
    """Add a command that hands its options to a parser of its own."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(name, help=HELP[name], context_settings=settings, add_help_option=False)
    def forward(context: typer.Context) -> None:
        def main(argv: list[str]) -> None:
            results = import_module(COMMANDS[name], __package__).main(list(context.args))
            if not {"-h", "--help"} & {*context.args} and (command := next_command(name, context.args, results)):
                hint(command)

        run_main(f"gemoclap {name}", main)


@_command
def predict(
    recordings: Recording,
    model: Model = "base",
    labels: Annotated[
        str | None,
        typer.Option(help="Words to choose from, for example angry,calm,sad; default: the emotions of the model."),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Prompt with {}, for example 'a {} voice'; may be repeated; default: those of the model."),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Default: by the suffix of --output, otherwise a table."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File (.csv or .jsonl); run again, the command continues it."),
    ] = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    gender: Annotated[bool, typer.Option("--gender", help="Predict the gender of the speaker too.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Overwrite --output instead of continuing it.")] = False,
    quiet: Quiet = False,
    revision: Revision = None,
) -> int:
    """Predict the emotion of recordings.

    Rows are written as they are made. Recordings that cannot be used are listed at the end; the exit status is then 1.
    """
    from .inference.recordings import find_recordings

    with usage_errors():
        found = find_recordings(recordings)
    _show_no_loading(quiet)
    from .inference.files import FilePredictor, OutputOptions
    from .inference.loading import load_pipeline
    from .inference.predictions import PredictionOptions

    names = dict.fromkeys(("labels", "candidate_labels"), "--labels") | {"hypothesis_template": "--template"}
    with usage_errors(names):
        options = PredictionOptions(labels, template or None, gender, batch_size)
        output_options = OutputOptions(output, format and format.value, restart, quiet)
        predictor = FilePredictor(load_pipeline(model, device, revision), found, options, output_options)
    predictor.run()
    if not quiet or predictor.errors:
        print(predictor.summary(), file=sys.stderr)
    hint(f"gemoclap info {words_of_model(model, revision)}  (what it was trained on, which words it knows)", quiet)
    return 1 if predictor.errors else 0


@_command
def embed(
    recordings: Recording,
    output: Annotated[str, typer.Option("--output", "-o", help="File (.npz) for names and embeddings.")],
    model: Model = "base",
    text: Annotated[list[str] | None, typer.Option(help="Text to embed too; may be repeated.")] = None,
    batch_size: BatchSize = 16,
    device: Device = None,
    quiet: Quiet = False,
    revision: Revision = None,
) -> int:
    """Write embeddings of recordings, and of texts, to a NumPy file.

    It has files, embeddings (recordings, dimensions), errors, and with --text also texts and text_embeddings.
    """
    from .inference.recordings import find_recordings

    with usage_errors():
        found = find_recordings(recordings)
    _show_no_loading(quiet)
    from .inference.embeddings import check_output, embed_files
    from .inference.loading import load_pipeline

    with usage_errors():
        check_output(output)
        pipe = load_pipeline(model, device, revision)
    summary, errors = embed_files(pipe, found, output, text or [], batch_size)
    if not quiet or errors:
        print(summary, file=sys.stderr)
    code = f"import numpy; print(numpy.load({output!r})['embeddings'].shape)"
    hint(shlex.join(["python", "-c", code]), quiet)
    return 1 if errors else 0


@_command
def info(
    model: Checkpoint = "base",
    revision: Revision = None,
    files: Annotated[bool, typer.Option("--files", help="List the SHA-256 of each code file.")] = False,
) -> None:
    """Tell what a checkpoint is: training data, words, licence, size, SHA-256 of its code."""
    from .inference.information import describe

    with usage_errors():
        print(describe(model, revision, files))
    hint(f"gemoclap predict RECORDING --model {words_of_model(model, revision)}")


@_command
def card(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    results: Annotated[
        list[str] | None, typer.Option(help="results.json of gemoclap evaluate; may be repeated.")
    ] = None,
) -> None:
    """Write the model card of a checkpoint, with the results of its evaluations."""
    from .publishing.card import write_card
    from .publishing.results import at_chance, read_results

    with usage_errors():
        print(write_card(model, results))
        chance = at_chance(read_results(results))
    hint(f"train a better model: {chance}" if chance else f"gemoclap push {shlex.quote(model)} NAMESPACE/NAME")


@_command
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    repository: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="Repository on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    branch: Annotated[str | None, typer.Option(help="Branch to push to; default: main.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit, such as v1.")] = None,
) -> None:
    """Push a checkpoint to the Hugging Face Hub in one commit, and print how it is loaded."""
    from .publishing.card import ENCODER, read_checkpoint
    from .publishing.push import load_snippet, push_checkpoint

    with usage_errors():
        commit = push_checkpoint(model, repository, private=private or None, revision=branch, tag=tag)
    architecture = read_checkpoint(Path(model)).architecture
    print(load_snippet(repository, commit.oid, architecture))
    use = "info" if architecture == ENCODER else "predict RECORDING --model"  # an encoder predicts no emotions
    hint(f"gemoclap {use} {repository} --revision {commit.oid}")


@_command
def demo_corpus(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="New folder for the corpus.")],
) -> None:
    """Synthesise a small corpus of four emotions, to try training without recordings."""
    from .command_line.places import refuse_unwritable
    from .command_line.shipped import shipped_path

    with usage_errors():
        refuse_unwritable({"FOLDER": folder})
    program = shipped_path("demo", "espeak_corpus.py")
    subprocess.run([sys.executable, str(program), folder], check=True)
    corpus = shlex.quote(folder)
    hint(f"gemoclap train --config demo --data_dir {corpus} --exclude_speakers f4 f5 m4 m6 m7 --output_dir RUN")


@_command
def doctor() -> int:
    """Check the installation: versions, devices, optional parts, and how to install what is missing."""
    from .command_line.doctor import examine

    lines, healthy = examine()
    print("\n".join(lines))
    hint("gemoclap predict RECORDING" if healthy else "install what is missing above")
    return 0 if healthy else 1


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
