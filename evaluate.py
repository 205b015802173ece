"""Evaluate a checkpoint on a corpus.

    python evaluate.py --model runs/sl --data_dir corpora/emodb --speakers 14 15

`python evaluate.py --help` lists the options; the code is in `modeling_gemoclap/evaluation/command.py`.
"""

from __future__ import annotations

import sys

if __name__ == "evaluate":  # imported from this folder: the Hugging Face package of that name is meant
    import importlib.machinery
    import importlib.util
    import os

    _here = os.path.dirname(os.path.abspath(__file__))
    _elsewhere = [path for path in sys.path if os.path.abspath(path or os.getcwd()) != _here]
    _spec = importlib.machinery.PathFinder.find_spec("evaluate", _elsewhere)
    if _spec is None:
        raise ModuleNotFoundError("No module named 'evaluate'", name="evaluate")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["evaluate"] = _module
    _spec.loader.exec_module(_module)


def main(argv: list[str]) -> None:
    """Run `modeling_gemoclap.evaluation.command`."""
    from modeling_gemoclap.evaluation import command

    command.main(argv)


if __name__ == "__main__":
    try:  # the libraries take seconds to import
        from modeling_gemoclap.command_line.failures import run_main
    except KeyboardInterrupt:
        print("evaluate.py: interrupted before it began", file=sys.stderr)
        sys.exit(130)
    run_main("evaluate.py", main)
