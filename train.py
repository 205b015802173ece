"""Train an objective: GEmo-CLAP, or with `--head` the classifier, two-stage contrast or speaker clusters.

    accelerate launch train.py --config configs/compact.yaml --data_dir corpora/emodb --output_dir runs/sl

Every field of the YAML file is also an option, which takes precedence:

    accelerate launch train.py --config configs/compact.yaml --objective ml --num_train_epochs 10
    accelerate launch train.py --config configs/compact.yaml --resume_from_checkpoint true

A protocol trains every fold, into RUN/fold_k/seed_s; the same command resumes an interrupted protocol:

    accelerate launch train.py --config configs/compact.yaml --protocol 5-folds-by-speaker --seeds 0 1 2 ...
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> None:
    """Run `modeling_gemoclap.runs.train`."""
    from modeling_gemoclap.runs import train

    train.main(argv)


if __name__ == "__main__":
    try:  # the libraries take seconds to import
        from modeling_gemoclap.command_line.failures import run_main
    except KeyboardInterrupt:
        print("train.py: interrupted before it began", file=sys.stderr)
        sys.exit(130)
    run_main("train.py", main)
