"""The tests on both ends of the supported versions: `nox`, `nox -s "tests(4.57)"`, `nox -- tests/corpora`.

`nox -s pythons` runs the quick tests on each supported version of Python, installed as documented.

`nox -s deepspeed` runs ZeRO-2 and ZeRO-3 on two CPU processes; DeepSpeed compiles a part of itself, with g++.

Needs nothing but nox; each session makes an environment of its own from one of the two files of constraints.
"""

import nox

nox.options.sessions = ["tests"]
QUICK = (
    "travelling/losses",
    "project/package",
    "evaluation/statistics",
    "corpora/manifest",
    "command_line/arguments",
    "project/constraints",
)
CONSTRAINTS = {"5": "constraints.txt", "4.57": "constraints-4.57.txt"}


@nox.session
@nox.parametrize("transformers", [nox.param(version, id=version) for version in CONSTRAINTS])
def tests(session: nox.Session, transformers: str) -> None:
    """Run the tests, or those that are named after `--`."""
    _install(session, CONSTRAINTS[transformers])
    arguments = session.posargs or ["-n", "2", "--dist", "loadfile"]
    session.run("python", "-c", "import transformers; print('transformers', transformers.__version__)")
    session.run("python", "-m", "pytest", "-q", *arguments)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run the tests that take seconds."""
    _install(session, CONSTRAINTS["5"])
    session.run("python", "-m", "pytest", "-q", *(f"tests/{name.replace('/', '/test_')}.py" for name in QUICK))


@nox.session
def deepspeed(session: nox.Session) -> None:
    """Training with DeepSpeed against training without."""
    _install(session, CONSTRAINTS["5"])
    # Built beside the torch that is there: alone it would fetch another.
    session.install("-q", "-c", CONSTRAINTS["5"], "--no-build-isolation", "deepspeed", env={"DS_BUILD_OPS": "0"})
    session.run("python", "-m", "pytest", "-q", "tests/training/test_launch.py", "-k", "deepspeed")


def _install(session: nox.Session, constraints: str) -> None:
    # torch first and by its pin: whatever asks for it afterwards then finds it there.
    session.install("-q", "-c", constraints, "torch")
    session.install("-q", "-c", constraints, "-e", ".[train,lora,tensorboard,demo,dev]")
    session.env.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
