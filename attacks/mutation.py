"""Mutation testing of losses, samplers, protocols and metrics: small changes of the code that tests must notice.

Mutants are made by mutmut's operators and run in a random order of the seed until the time is over, or all of them
with `--all`. A mutant is killed if a quick test of its module fails or needs far more time than without it. A mutant
that survives counts as lost, unless `survivors.yaml` lists it with a judgement. It counts as survived in the rates
in any case, except in the rate that leaves out those that are judged to be equivalent to the original.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: processes are forked after it
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("GEMOCLAP_CORPORA", None)  # the result is the same with and without the corpora

import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

import mutants
import mutation_runner as runners
import yaml
from attack import ROOT, Attack, parse_options

sys.dont_write_bytecode = True
SURVIVORS = ROOT / "attacks" / "survivors.yaml"
FIELDS = ("module", "function", "before", "after")  # of an entry; `number` counts equal changes of a function from 0
SMALL = 3  # mutants of each module
PROTOCOLS = ("tests/corpora/test_protocols.py",)
STATISTICS = ("tests/evaluation/test_statistics.py",)
SAMPLERS = (
    "tests/training/test_samplers.py",
    "tests/corpora/test_shards.py::test_only_the_last",
    "tests/corpora/test_shards.py::test_each_worker",
)
SPEAKERS = "tests/objectives/test_speakers.py::test_"
# The quick tests that judge each module: files, or how the names of tests begin.
TESTS = {
    "losses": {
        "losses_gemoclap": ("tests/travelling/test_losses.py",),
        "objectives/two_stage/losses": ("tests/objectives/test_supcon_losses.py",),
        "objectives/speaker_clusters/losses": (f"{SPEAKERS}cluster_info_nce", f"{SPEAKERS}gradient_reversal"),
    },
    "samplers": {
        "training/samplers": SAMPLERS,
        "objectives/two_stage/sampler": ("tests/objectives/test_supcon_sampler.py",),
        "objectives/speaker_clusters/sampler": tuple(
            SPEAKERS + name for name in ("composition", "an_epoch", "invalid_arg")
        ),
    },
    "protocols": {
        "corpora/protocols": PROTOCOLS,
        "corpora/partition": ("tests/corpora/test_partition.py",),
    },
    "metrics": {
        "evaluation/statistics": STATISTICS,
        "evaluation/metrics": STATISTICS,
        "evaluation/war_uar/war_uar": STATISTICS,
        "intervals": STATISTICS,
    },
}


def judgements() -> dict[tuple, str]:
    """Read the judgement of each known survivor, by the key of its mutant."""
    entries = yaml.safe_load(SURVIVORS.read_text(encoding="utf-8")) if SURVIVORS.exists() else []
    return {(*map(entry.get, FIELDS), entry.get("number", 0)): entry["judgement"] for entry in entries or []}


def choose(options) -> list[tuple[str, mutants.Mutant]]:
    """The mutants to run, each with its group, in their order."""
    rng, chosen = random.Random(options.seed), []
    for group, modules in TESTS.items():
        for module in modules:
            if options.module in (None, group, module):
                found = list(mutants.mutants_of(module))
                rng.shuffle(found)
                chosen += [(group, mutant) for mutant in (found[:SMALL] if options.small else found)]
    rng.shuffle(chosen)
    return chosen


def attack_all(attack: Attack, runner: runners.Runner, chosen: list[tuple[str, mutants.Mutant]]) -> None:
    """Run the mutants until the time is over, and write the figures of each module."""
    known, results, unlisted = judgements(), defaultdict(Counter), []
    for number, (group, mutant) in enumerate(chosen):
        if attack.seconds_left() < 0 and not attack.options.all:
            break
        outcome = runner.judge(mutant, TESTS[group][mutant.module])
        judgement = known.get(mutant.key)
        results[mutant.module][outcome] += 1
        if outcome == runners.SURVIVED:
            results[mutant.module]["equivalent"] += str(judgement).startswith("equivalent")
        what = f"{mutant.module}, {mutant.function or 'outside of functions'}"
        with attack.case(f"mutants of {group}", what):
            if outcome == runners.SURVIVED and not judgement:
                unlisted.append(dict(zip((*FIELDS, "number"), mutant.key, strict=True)) | {"judgement": ""})
                raise AssertionError(f"survived: {mutant.before} -> {mutant.after} #{mutant.number}")
        if not number % 100:
            print(f"{number} of {len(chosen)}", flush=True)
    for module, counts in results.items():
        write_figures(attack, module, counts)
    write_figures(attack, "all modules", sum(results.values(), Counter()))
    if attack.options.unlisted:
        attack.options.unlisted.write_text(yaml.safe_dump(unlisted, sort_keys=False, width=1000, allow_unicode=True))


def write_figures(attack: Attack, name: str, counts: Counter) -> None:
    """Write the number of mutants and the rates of a module."""
    outcomes = (runners.KILLED, runners.TIMEOUT, runners.SURVIVED)
    tried, caught = sum(counts[outcome] for outcome in outcomes), counts[runners.KILLED] + counts[runners.TIMEOUT]
    attack.figures |= {f"{name}: {outcome}": counts[outcome] for outcome in outcomes}
    attack.figures[f"{name}: killed, per cent"] = round(100 * caught / max(1, tried), 1)
    different = tried - counts["equivalent"]
    attack.figures[f"{name}: killed, per cent without equivalents"] = round(100 * caught / max(1, different), 1)


def main() -> None:
    """Run the attack."""
    attack_options = (
        (("--all",), {"action": "store_true", "help": "all mutants, whatever time they take"}),
        (("--unlisted",), {"type": Path, "help": "YAML file to write: survivors to be judged or killed"}),
        (("--module",), {"help": f"only one of {', '.join(TESTS)}, or one file such as corpora/protocols"}),
    )
    attack = Attack("mutation", parse_options(__doc__, *attack_options))
    chosen = choose(attack.options)
    files = sorted({name.partition("::")[0] for group, mutant in chosen for name in TESTS[group][mutant.module]})
    runners.run(files, lambda runner: attack_all(attack, runner, chosen))
    attack.finish()


if __name__ == "__main__":
    main()
