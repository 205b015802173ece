"""Runs scripts in processes that are forked from this one, which has imported the libraries: that takes five seconds.

    python fork_server.py

Reads one JSON object a line: `script` (`-m` for a module, the first argument), `arguments`, `folder`, `env`, and the
files `stdout` and `stderr`. Answers with the exit status.
"""

import json
import os
import runpy
import sys

import numpy as np


def serve() -> None:
    """Answer requests until standard input ends."""
    import modeling_gemoclap.evaluation.actions
    import modeling_gemoclap.evaluation.report
    import modeling_gemoclap.runs.grid
    import modeling_gemoclap.runs.train  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            run(request)  # leaves by SystemExit, as a script does
        answers.write(f"{request['number']} {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


def run(request: dict) -> None:
    """Become the script of a request."""
    for descriptor, path, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], None),
        (2, request["stderr"], None),
    ):
        os.dup2(os.open(path, mode if mode is not None else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    np.random.seed(None)  # else all children would share the state of this process
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    if request["script"] == "-m":
        sys.argv = request["arguments"]
        runpy.run_module(request["arguments"][0], run_name="__main__", alter_sys=True)
        sys.exit(0)
    sys.argv = [request["script"], *request["arguments"]]
    sys.path[0] = os.path.dirname(os.path.abspath(request["script"]))
    runpy.run_path(request["script"], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    serve()
