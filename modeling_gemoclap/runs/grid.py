"""Train and evaluate all cells of a table with the same protocol, and compare them.

    python grid.py --config configs/paper_table1.yaml --data_dir IEMOCAP --output_dir runs/table1
    python grid.py --config configs/readings.yaml --data_dir emodb --output_dir runs/readings --seeds 0 1 2

Run the same command again to resume. Options of train.py may follow `--`; they apply to every cell. To run the first
table with the compact encoder instead of pretrained encoders:

    python grid.py --config configs/paper_table1.yaml --base configs/compact.yaml --leave_out audio_model ...
        -- --num_train_epochs 5
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from ..command_line.commands import command_words, publishable_command
from ..command_line.files import read_yaml, typed
from ..command_line.parser import RaisingParser, expanded, number, switch, words_of
from ..command_line.places import refuse_unwritable
from ..command_line.ranges import SEED
from ..command_line.shipped import shipped_config
from ..corpora.files import read_object


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: The command line without the program name.

    Returns:
        The options; `train` contains the words after `--`.

    Raises:
        ValueError: If an option is unknown or has an invalid value.
    """
    argv, train = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = RaisingParser("grid.py", description=__doc__, **form)
    parser.add_argument("--config", type=expanded, required=True, help="YAML file with base, protocol, cells and vary")
    parser.add_argument("--data_dir", type=expanded, required=True, nargs="+", help="corpus folder; several are mixed")
    parser.add_argument("--output_dir", type=expanded, required=True, help="folder with one run for each cell")
    parser.add_argument("--base", type=expanded, help="configuration of train.py, instead of the file's")
    parser.add_argument("--protocol", help="protocol, instead of the file's")
    parser.add_argument("--leave_out", nargs="+", default=[], help="fields of the cells to ignore")
    parser.add_argument("--seeds", nargs="+", type=number(int, SEED), default=[0])
    for option in ("--corpus_name", "--folds_file", "--on_bad_audio"):
        parser.add_argument(option, type=expanded, nargs="+", default=[], help="see train.py and evaluate.py")
    parser.add_argument("--gender_probe", type=switch, default=True, metavar="true|false", help="see evaluate.py")
    launcher = f"{sys.executable} -m accelerate.commands.launch"
    parser.add_argument("--launcher", default=launcher, help="command that runs train.py")
    options = vars(parser.parse_args(argv))
    options["config"] = shipped_config(options["config"])
    return argparse.Namespace(**options | {"seeds": list(map(str, options["seeds"]))}, train=train)


def cells_of(path: str) -> tuple[dict, list[dict]]:
    """Read the file of a grid.

    Args:
        path: The YAML file.

    Returns:
        The content of the file, and the cells: those under `cells`, and one for each value under `vary`.

    Raises:
        ValueError: If the file is not a grid, or two cells have the same name.
    """
    grid = read_yaml(path)
    cells, varied = grid.get("cells") or [], grid.get("vary") or {}
    valid = isinstance(varied, dict) and isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)
    if not valid or set(grid) - {"base", "protocol", "cells", "vary"}:
        raise ValueError(f"{path}: a grid has base, protocol, cells (a list) and vary (fields and lists of values)")
    for field, values in varied.items():
        if not isinstance(values, list):
            raise ValueError(f"{path}: vary: {field} must be a list of values such as [{values}]")
        cells = cells + [{"name": f"{field} {value}", field: value} for value in values]
    cells = [cell | {"published": typed(cell["published"])} if "published" in cell else cell for cell in cells]
    names = [folder_of(cell) if cell.get("name") else None for cell in cells]
    if not cells or None in names or len(set(names)) < len(names):
        raise ValueError(f"{path}: give each cell a different name")
    return grid, cells


def run(command: list[str]) -> None:
    """Print and run a command.

    Raises:
        ValueError: If the command fails.
    """
    print(f"+ {shlex.join(command)}", flush=True)
    if code := subprocess.run(command).returncode:
        raise ValueError(
            f"stopped: {shlex.join(command)} failed with exit status {code}; run the same command again to resume"
        )


def folder_of(cell: dict) -> str:
    """Return the name of the folder of a cell."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in cell["name"]).lower()


def commands_of(cell: dict, grid: dict, options: argparse.Namespace) -> tuple[Path, list[str], list[str]]:
    """Return the folder of a cell, and its options of train.py and evaluate.py."""
    folder = Path(options.output_dir, folder_of(cell))
    protocol, base = options.protocol or grid["protocol"], options.base or grid["base"]
    data = ["--data_dir", *options.data_dir, "--protocol", protocol, "--seeds", *options.seeds]
    optional = {name: getattr(options, name) for name in ("corpus_name", "folds_file", "on_bad_audio")}
    data += [word for name, values in optional.items() if values for word in (f"--{name}", *values)]
    fields = {name: value for name, value in cell.items() if name not in ("name", "published", *options.leave_out)}
    settings = [word for name, value in fields.items() for word in (words_of(name, value) or [f"--no-{name}"])]
    train = ["--config", base, *settings, *data, "--output_dir", str(folder), *options.train]
    probe = [] if options.gender_probe else ["--gender_probe", "false"]
    return folder, train, ["--model", str(folder), *data, *probe]


def as_table(cells: list[dict], folders: list[Path]) -> str:
    """Return a Markdown table of the cells: metrics, the difference to the first cell, and published metrics.

    Args:
        cells: The cells of the grid.
        folders: Folder of the evaluated run of each cell.
    """
    from ..evaluation.comparison import compare_runs, difference_text
    from ..intervals import interval_text

    published = any("published" in cell for cell in cells)
    head = ["", "WAR", "UAR", "95 % interval", "UAR minus that of the first"]
    head += ["published WAR", "published UAR"] if published else []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for cell, folder in zip(cells, folders, strict=True):
        fields = {"war": float, "uar": float, "intervals": dict, "speakers": (dict, list)}
        results = read_object(folder / "results/results.json", **fields)
        row = [cell["name"], f"{100 * results['war']:.1f}", f"{100 * results['uar']:.1f}"]
        row.append(interval_text(results["intervals"]["uar"], len(results["speakers"])))
        row.append(difference_text(compare_runs(folders[0], folder)) if folder != folders[0] else "")
        figures = cell.get("published", {})
        row += [f"{figures[name]:.2f}" if name in figures else "" for name in ("war", "uar")] if published else []
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Train and evaluate all cells, and write `table.md`.

    Args:
        argv: The command line without the program name.
    """
    from .recipe import check_recipe

    options = parse(argv)
    refuse_unwritable({"--output_dir": options.output_dir})
    grid, cells = cells_of(options.config)
    for name in ("base", "protocol"):
        if not (getattr(options, name) or grid.get(name)):
            raise ValueError(f"{options.config}: no {name}; add it to the file, or give --{name}")
    commands = {cell["name"]: commands_of(cell, grid, options) for cell in cells}
    for name, (_, train, _) in commands.items():  # check all cells before hours of training
        check_recipe(train, f"{options.config}: the cell {name!r}")
    for _, train, evaluate in commands.values():  # both commands skip finished folds
        run([*shlex.split(options.launcher), *command_words("train"), *train])
        run([sys.executable, *command_words("evaluate"), *evaluate])
    table = as_table(cells, [folder for folder, _, _ in commands.values()])
    notes = (
        f"{options.protocol or grid['protocol']}, seeds {' '.join(options.seeds)}; intervals over speakers, paired."
    )
    if any("published" in cell for cell in cells):
        notes += f" The published figures are those of {grid.get('protocol')} with the cells' own encoders."
    if options.leave_out:
        notes += f" Left out of every cell: {', '.join(options.leave_out)}."
    command = publishable_command([*command_words("grid"), *argv])
    Path(options.output_dir, "table.md").write_text(f"{table}\n\n{notes}\n\n```\n{command}\n```\n", encoding="utf-8")
    print(f"\n{table}\n\n{notes}\n{Path(options.output_dir, 'table.md')}")
