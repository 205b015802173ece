"""Attack with what strangers give: files of checkpoints and corpora, names, words, and requests.

    python attacks/security.py --minutes 8 --record attacks/records/security.json

Each part has a list of fixed cases; then random ones follow until the time is over. SECURITY.md has the promises.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import security_bombs
import security_loading
import security_markup
import security_paths
import security_pickles
import security_service
from attack import Attack, parse_options

PARTS = (security_pickles, security_loading, security_paths, security_bombs, security_markup, security_service)
RANDOM = (security_paths, security_markup)  # parts with random cases


def main() -> None:
    """Run the fixed cases of all parts, then random cases."""
    attack = Attack("security", parse_options(__doc__))
    numbers = random.Random(attack.options.seed)
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        for part in PARTS:
            place = Path(folder, part.__name__)
            place.mkdir()
            part.run(attack, place)
        cases = 0 if attack.options.small else None
        for part in itertools.cycle(RANDOM) if cases is None else ():
            if attack.seconds_left() <= 0:
                break
            part.run_random(attack, Path(folder, part.__name__), numbers)
    attack.finish()


if __name__ == "__main__":
    main()
