"""Make a smaller copy of a trained checkpoint, for shipping.

    gemoclap compress MODEL OUTPUT --half_precision
    gemoclap compress MODEL OUTPUT --half_precision --word_pieces 5500

MODEL is the folder of a checkpoint, which is not changed. OUTPUT is a complete checkpoint with its own model card. It
is loaded like any other checkpoint, and computes in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.parser import RaisingParser, expanded
from ..command_line.places import refuse_unwritable


def build_parser() -> RaisingParser:
    """The parser of the command line."""
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = RaisingParser("gemoclap compress", description=__doc__, **form)
    parser.add_argument("model", type=expanded, metavar="MODEL", help="folder of a checkpoint")
    parser.add_argument("output", type=expanded, metavar="OUTPUT", help="new or empty folder")
    parser.add_argument(
        "--half_precision", action="store_true", help="store the weights in float16; without it, in float32"
    )
    parser.add_argument(
        "--word_pieces",
        type=int,
        metavar="N",
        help="keep N word pieces of a text encoder such as BERT: those of prompts, emotion words and single "
        "characters, then the most frequent ones",
    )
    return parser


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: The command line without the name of the program.

    Raises:
        ValueError: If an option is invalid, if nothing would be made smaller, or if OUTPUT has content.
    """
    options = build_parser().parse_args(argv)
    options.model, options.output = Path(options.model), Path(options.output)
    if not options.half_precision and options.word_pieces is None:
        raise ValueError("give --half_precision, --word_pieces N, or both: without them, a copy is not smaller")
    if options.output.exists() and not (options.output.is_dir() and not any(options.output.iterdir())):
        raise ValueError(f"{options.output} exists and is not an empty folder: give another OUTPUT, or delete it")
    refuse_unwritable({"OUTPUT": options.output})
    return options


def main(argv: list[str]) -> None:
    """Compress a checkpoint, and print what became smaller.

    Args:
        argv: The command line without the name of the program.
    """
    options = parse(argv)
    from .checkpoint import compress  # transformers takes seconds to import

    print(compress(options.model, options.output, options.half_precision, options.word_pieces), flush=True)
