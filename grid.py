"""Train and evaluate every cell of a table by one protocol, and compare the cells.

    python grid.py --config configs/readings.yaml --data_dir emodb --output_dir runs/readings --seeds 0 1 2

`python grid.py --help` lists the options; the code is in `modeling_gemoclap/runs/grid.py`.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> None:
    """Run `modeling_gemoclap.runs.grid`."""
    from modeling_gemoclap.runs import grid

    grid.main(argv)


if __name__ == "__main__":
    try:  # the libraries take seconds to import
        from modeling_gemoclap.command_line.failures import run_main
    except KeyboardInterrupt:
        print("grid.py: interrupted before it began", file=sys.stderr)
        sys.exit(130)
    run_main("grid.py", main)
