"""Commands for checkpoints and the installation: info, card, push, demo-corpus, doctor."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..command_line.failures import usage_errors
from ..command_line.hints import hint, words_of_model
from .common import Checkpoint, Revision, command


@command
def info(
    model: Checkpoint = "base",
    revision: Revision = None,
    files: Annotated[bool, typer.Option("--files", help="List the SHA-256 of each code file.")] = False,
) -> None:
    """Tell what a checkpoint is: training data, words, licence, size, SHA-256 of its code."""
    from ..inference.information import describe

    with usage_errors():
        print(describe(model, revision, files))
    hint(f"gemoclap predict RECORDING --model {words_of_model(model, revision)}")


@command
def card(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    results: Annotated[
        list[str] | None, typer.Option(help="results.json of gemoclap evaluate; may be repeated.")
    ] = None,
) -> None:
    """Write the model card of a checkpoint, with the results of its evaluations."""
    from ..publishing.card import write_card
    from ..publishing.results import at_chance, read_results

    with usage_errors():
        print(write_card(model, results))
        chance = at_chance(read_results(results))
    hint(f"train a better model: {chance}" if chance else f"gemoclap push {shlex.quote(model)} NAMESPACE/NAME")


@command
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    repository: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="Repository on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    branch: Annotated[str | None, typer.Option(help="Branch to push to; default: main.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit, such as v1.")] = None,
) -> None:
    """Push a checkpoint to the Hugging Face Hub in one commit, and print how it is loaded."""
    from ..publishing.card import ENCODER, read_checkpoint
    from ..publishing.push import load_snippet, push_checkpoint

    with usage_errors():
        commit = push_checkpoint(model, repository, private=private or None, revision=branch, tag=tag)
    architecture = read_checkpoint(Path(model)).architecture
    print(load_snippet(repository, commit.oid, architecture))
    use = "info" if architecture == ENCODER else "predict RECORDING --model"  # an encoder predicts no emotions
    hint(f"gemoclap {use} {repository} --revision {commit.oid}")


@command
def demo_corpus(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="New folder for the corpus.")],
) -> None:
    """Synthesise a small corpus of four emotions, to try training without recordings."""
    from ..command_line.places import refuse_unwritable
    from ..command_line.shipped import shipped_path

    with usage_errors():
        refuse_unwritable({"FOLDER": folder})
    program = shipped_path("demo", "espeak_corpus.py")
    subprocess.run([sys.executable, str(program), folder], check=True)
    corpus = shlex.quote(folder)
    hint(f"gemoclap train --config demo --data_dir {corpus} --exclude_speakers f4 f5 m4 m6 m7 --output_dir RUN")


@command
def doctor() -> int:
    """Check the installation: versions, devices, optional parts, and how to install what is missing."""
    from ..command_line.doctor import examine

    lines, healthy = examine()
    print("\n".join(lines))
    hint("gemoclap predict RECORDING" if healthy else "install what is missing above")
    return 0 if healthy else 1
