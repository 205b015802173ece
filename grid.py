"""Train and judge every cell of a table by one protocol, and put them side by side.

    python grid.py --config configs/paper_table1.yaml --data_dir IEMOCAP --output_dir runs/table1
    python grid.py --config configs/readings.yaml --data_dir emodb --output_dir runs/readings --seeds 0 1 2

Started again, it goes on where it was. Options of train.py may follow `--`, and hold for every cell: the first in
small, with the compact encoder in place of the pretrained ones, is

    python grid.py --config configs/paper_table1.yaml --base configs/compact.yaml --leave_out audio_model ...
        -- --num_train_epochs 5
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

try:  # the libraries take seconds to import
    from modeling_gemoclap.command_line.failures import run_main
    from modeling_gemoclap.command_line.files import read_yaml, typed
    from modeling_gemoclap.command_line.parser import RaisingParser, expanded, number, words_of
    from modeling_gemoclap.command_line.places import refuse_unwritable
    from modeling_gemoclap.command_line.ranges import SEED
    from modeling_gemoclap.corpora.files import read_object
except KeyboardInterrupt:
    print("grid.py: interrupted before it began", file=sys.stderr)
    sys.exit(130)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; `train` is what stands behind `--`."""
    argv, train = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = RaisingParser("grid.py", description=__doc__, **form)
    parser.add_argument("--config", type=expanded, required=True, help="YAML file: base, protocol, cells, vary")
    parser.add_argument("--data_dir", type=expanded, required=True, nargs="+", help="corpus folder; several are mixed")
    parser.add_argument("--output_dir", type=expanded, required=True, help="a folder is made in it for each cell")
    parser.add_argument("--base", type=expanded, help="configuration of train.py in place of the file's")
    parser.add_argument("--protocol", help="in place of the file's")
    parser.add_argument("--leave_out", nargs="+", default=[], help="fields of the cells that are not to be set")
    parser.add_argument("--seeds", nargs="+", type=number(int, SEED), default=[0])
    for option in ("--corpus_name", "--folds_file", "--on_bad_audio"):
        parser.add_argument(option, type=expanded, nargs="+", default=[], help="as for train.py and evaluate.py")
    parser.add_argument("--launcher", default=f"{sys.executable} -m accelerate.commands.launch", help="runs train.py")
    found = vars(parser.parse_args(argv))
    return argparse.Namespace(**found | {"seeds": list(map(str, found["seeds"]))}, train=train)


def cells_of(path: str) -> tuple[dict, list[dict]]:
    """The file, and its cells: those that it names, and one for each value that it varies.

    Raises:
        ValueError: If it has another form, or two cells have the same name.
    """
    grid = read_yaml(path)
    cells, varied = grid.get("cells") or [], grid.get("vary") or {}
    wrong = not isinstance(varied, dict) or not isinstance(cells, list) or not all(isinstance(c, dict) for c in cells)
    if wrong or set(grid) - {"base", "protocol", "cells", "vary"}:
        raise ValueError(f"{path}: a grid has base, protocol, cells (a list) and vary (fields and lists of values)")
    for field, values in varied.items():
        if not isinstance(values, list):
            raise ValueError(f"{path}: vary: {field} must be a list of values, as [{values}]")
        cells = cells + [{"name": f"{field} {value}", field: value} for value in values]
    cells = [cell | {"published": typed(cell["published"])} if "published" in cell else cell for cell in cells]
    names = [folder_of(cell) if cell.get("name") else None for cell in cells]
    if not cells or None in names or len(set(names)) < len(names):
        raise ValueError(f"{path}: every cell needs a name of its own")
    return grid, cells


def run(command: list[str]) -> None:
    """Run a program, told; its failure is ours."""
    print(f"+ {shlex.join(command)}", flush=True)
    if code := subprocess.run(command).returncode:
        raise ValueError(f"stopped: {shlex.join(command)} ended with {code}; start again to go on from here")


def folder_of(cell: dict) -> str:
    """The name of a cell's folder."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in cell["name"]).lower()


def commands_of(cell: dict, grid: dict, options: argparse.Namespace) -> tuple[Path, list[str], list[str]]:
    """A cell's folder, and the words of train.py and evaluate.py for it."""
    folder = Path(options.output_dir, folder_of(cell))
    protocol, base = options.protocol or grid["protocol"], options.base or grid["base"]
    data = ["--data_dir", *options.data_dir, "--protocol", protocol, "--seeds", *options.seeds]
    more = {name: getattr(options, name) for name in ("corpus_name", "folds_file", "on_bad_audio")}
    data += [word for name, values in more.items() if values for word in (f"--{name}", *values)]
    fields = {name: value for name, value in cell.items() if name not in ("name", "published", *options.leave_out)}
    settings = [word for name, value in fields.items() for word in (words_of(name, value) or [f"--no-{name}"])]
    train = ["--config", base, *settings, *data, "--output_dir", str(folder), *options.train]
    return folder, train, ["--model", str(folder), *data]


def as_table(cells: list[dict], folders: list[Path]) -> str:
    """Figures of every cell, its difference to the first, paired by speaker, and what was published."""
    from modeling_gemoclap.evaluation.comparison import compare_runs, difference_text
    from modeling_gemoclap.evaluation.statistics import interval_text

    published = any("published" in cell for cell in cells)
    head = ["", "WAR", "UAR", "95 % interval", "UAR minus that of the first"]
    head += ["published WAR", "published UAR"] if published else []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for cell, folder in zip(cells, folders, strict=True):
        fields = {"war": float, "uar": float, "intervals": dict, "speakers": (dict, list)}
        found = read_object(folder / "results/results.json", **fields)
        row = [cell["name"], f"{100 * found['war']:.1f}", f"{100 * found['uar']:.1f}"]
        row.append(interval_text(found["intervals"]["uar"], len(found["speakers"])))
        row.append(difference_text(compare_runs(folders[0], folder)) if folder != folders[0] else "")
        figures = cell.get("published", {})
        row += [f"{figures[name]:.2f}" if name in figures else "" for name in ("war", "uar")] if published else []
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Run all cells, and write table.md."""
    from modeling_gemoclap.runs.recipe import check_recipe

    options = parse(argv)
    refuse_unwritable({"--output_dir": options.output_dir})
    grid, cells = cells_of(options.config)
    for name in ("base", "protocol"):
        if not (getattr(options, name) or grid.get(name)):
            raise ValueError(f"{options.config}: no {name} there; name one in it, or give --{name}")
    commands = {cell["name"]: commands_of(cell, grid, options) for cell in cells}
    for name, (_, train, _) in commands.items():  # all of them, before the first is trained for hours
        check_recipe(train, f"{options.config}: the cell {name!r}")
    for _, train, judge in commands.values():  # what is there is not done again
        run([*shlex.split(options.launcher), "train.py", *train])
        run([sys.executable, "evaluate.py", *judge])
    table = as_table(cells, [folder for folder, _, _ in commands.values()])
    notes = (
        f"{options.protocol or grid['protocol']}, seeds {' '.join(options.seeds)}; intervals over speakers, paired."
    )
    if any("published" in cell for cell in cells):
        notes += f" The published figures are those of {grid.get('protocol')} with the cells' own encoders."
    if options.leave_out:
        notes += f" Left out of every cell: {', '.join(options.leave_out)}."
    command = shlex.join(["python", "grid.py", *argv])
    Path(options.output_dir, "table.md").write_text(f"{table}\n\n{notes}\n\n```\n{command}\n```\n", encoding="utf-8")
    print(f"\n{table}\n\n{notes}\n{Path(options.output_dir, 'table.md')}")


if __name__ == "__main__":
    run_main("grid.py", main)
