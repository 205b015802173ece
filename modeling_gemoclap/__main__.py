"""Train and evaluate with the installed package, without the scripts of the repository.

    accelerate launch -m modeling_gemoclap train --config compact --data_dir CORPUS --output_dir RUN
    python -m modeling_gemoclap evaluate --model RUN --data_dir CORPUS
    python -m modeling_gemoclap grid --config readings --data_dir CORPUS --output_dir RUNS
    python -m modeling_gemoclap pretrained --output_dir pretrained
    python -m modeling_gemoclap compress RUN COPY --half_precision

All but `pretrained` need the packages of `pip install 'gemoclap[train]'`. Each command has `--help`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .command_line.failures import run_main

SCRIPTS = {"train": ".runs.train", "evaluate": ".evaluation.command", "grid": ".runs.grid"}  # also NAME.py
COMMANDS = SCRIPTS | {"pretrained": ".pretrained.command", "compress": ".compression.command"}


def main(argv: list[str]) -> None:
    """Run the command that the first word names.

    Raises:
        ValueError: If it names none.
    """
    name = argv[0] if argv else None
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in COMMANDS:
        given = f"no command {name}" if name else "no command is given"
        raise ValueError(f"{given}; the commands are {', '.join(COMMANDS)}")
    import_module(COMMANDS[name], __package__).main(argv[1:])


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else None
    run_main(f"{command}.py" if command in SCRIPTS else "modeling_gemoclap", main)
