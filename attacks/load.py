"""Load the service, the web page and the pipeline: 200 requests at the same time, clients that go away, and SIGTERM.

    python attacks/load.py --minutes 8 --record attacks/records/load.json

Each of the three has a share of the time. The recordings are those of GEMOCLAP_CORPORA, otherwise synthetic tones.
Growth of memory is a slope over the rounds after the first third, with its standard error.
"""

from __future__ import annotations

import importlib.util
import os
import random
import tempfile
import time
from pathlib import Path

import load_page
import load_pipeline
import load_service
from attack import Attack, parse_options

SHARES = {load_service: 0.45, load_page: 0.45, load_pipeline: 0.1}
NEEDED = {load_page: "gradio", load_service: "fastapi"}


def main() -> None:
    """Run the three in turn."""
    attack = Attack("load", parse_options(__doc__))
    random.seed(attack.options.seed)
    seconds = 60 * attack.options.minutes
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        for part, share in SHARES.items():
            if importlib.util.find_spec(NEEDED.get(part, "torch")) is None:
                print(f"{part.__name__}: left out, {NEEDED[part]} is not installed")
                continue
            place = Path(folder, part.__name__)
            place.mkdir()
            part.run(attack, place, time.monotonic() + share * seconds)
    attack.finish()


if __name__ == "__main__":
    main()
