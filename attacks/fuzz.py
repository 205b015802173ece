"""Ten thousand bad files: each ends in a result or in an error that names it, within limits of time and memory.

Recordings, tables, checkpoints, recipes, results and requests are damaged at random, from valid files that this
program makes, and used in forked processes: a crash or a hang has one input as its cause. A model predicts a share of
the recordings. Structured values (labels, templates, settings) are drawn by hypothesis, and four parsers are explored
by atheris, guided by the coverage of their code, where these packages are installed.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

from attack import Attack, parse_options

ROUND = 60  # inputs of a kind with share 1 in one round
SMALL = 6


def main() -> None:
    """Run the attack."""
    save = (
        ("--save",),
        {"type": Path, "help": "folder for the inputs that broke a promise, as small as possible"},
    )
    only = (("--only",), {"help": "regular expression for the kinds to attack"})
    options = parse_options(__doc__, save, only)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    attack = Attack("fuzz", options)

    from fuzz_targets import ATTACKED  # imports the package, which the help does not need
    from fuzz_values import draw_values
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    targets = [target for target in ATTACKED if re.search(options.only or "", target.kind)]
    if not options.only:
        draw_values(attack)
        if not options.small:
            from fuzz_coverage import explore

            explore(attack)
    verdicts, seen, done = Counter(), set(), Counter()
    while not done or (not options.small and attack.seconds_left() > 0):
        for target in targets:
            if not done[target.kind] or attack.seconds_left() > 0:  # the first round is complete
                count = SMALL if options.small else max(1, round(ROUND * target.share))
                verdicts += attack_kind(attack, target, done[target.kind], count, seen)
                done[target.kind] += count
    attack.figures |= {f"inputs that ended in {name}": verdicts[verdict] for verdict, name in NAMES.items()}
    attack.finish()


NAMES = {"answered": "a result", "refused": "an error that names the file"}


def attack_kind(attack: Attack, target, first: int, count: int, seen: set) -> Counter:
    """Use the inputs of some numbers, record what was lost, and count the verdicts."""
    from fuzz_judge import judge
    from fuzz_worker import run_isolated

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder, "checkpoint" if "checkpoint" in target.words else "folder")
        folder.mkdir()
        if target.prepare:
            target.prepare(folder)

        def job(number: int) -> tuple[str, str, str]:
            data = target.input(number, attack.options.seed)
            (folder / target.name).write_bytes(data)
            return judge(lambda: target.run(folder / target.name), (target.name, *target.words), len(data))

        if first == 0:  # imports, the valid files and models are made once, in this process
            with attack.case(target.kind, "a valid file"):
                verdict, message, _ = job(0)
                if verdict != "answered":
                    raise ValueError(message)
        first += target.valid if attack.options.small else 0  # the others are valid files
        outcomes = run_isolated(job, first, first + count, max(20.0, attack.seconds_left()))
        attack.tried[target.kind] += len(outcomes)
        for outcome in outcomes:
            signature = target.kind, outcome.place, outcome.message[:40]
            if outcome.verdict == "broken" and signature not in seen:
                seen.add(signature)
                attack.lost.append(f"{target.kind} (input {outcome.index}, {outcome.place}): {outcome.message[:300]}")
                print(f"LOST {attack.lost[-1]}", flush=True)
                save(attack, target, outcome, job, folder / target.name)
    return Counter(outcome.verdict for outcome in outcomes)


def save(attack: Attack, target, outcome, job, path: Path) -> None:
    """Write the input of a broken promise to `--save`, cut as far as it stays broken in the same place."""
    if not attack.options.save:
        return
    from fuzz_judge import judge
    from fuzz_worker import run_isolated

    data = target.input(outcome.index, attack.options.seed)

    def is_broken(shorter: bytes) -> bool:
        def once(_: int) -> tuple[str, str, str]:
            path.write_bytes(shorter)
            return judge(lambda: target.run(path), (target.name, *target.words), len(shorter))

        [found] = run_isolated(once, 0, 1, 60)
        return found.verdict == "broken" and found.place == outcome.place

    size = len(data) // 2
    while size >= 1 and len(data) < 2**18:
        for start in range(0, len(data), size)[:200]:
            if is_broken(shorter := data[:start] + data[start + size :]):
                data = shorter
        size //= 4
    folder = attack.options.save / re.sub(r"\W+", "_", target.kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{outcome.index}_{target.name}").write_bytes(data)


if __name__ == "__main__":
    main()
