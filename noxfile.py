"""The tests on both ends of the supported versions: `nox`, `nox -s "tests(4.57)"`, `nox -- tests/corpora`.

`nox -s pythons` runs the quick tests on each supported version of Python, installed as documented.

`nox -s floors` runs the tests of the files that are copied into checkpoints on old versions of torch. Their packages
include 3 GB of CUDA libraries, so this is not part of continuous integration. CONTRIBUTING.md records the results.

`nox -s deepspeed` runs ZeRO-2 and ZeRO-3 on two CPU processes; DeepSpeed compiles a part of itself, with g++.

Needs nothing but nox; each session makes an environment of its own from one of the two files of constraints.
"""

from pathlib import Path

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
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# Of both ends; MTEB, the site of the documentation and the service are pinned in constraints.txt alone, and their
# tests are skipped where they are not installed.
EXTRAS = "train,lora,tensorboard,demo,dev"
NEWEST_EXTRAS = f"{EXTRAS},mteb,docs,serve,onnx,attack"
FLOOR = "2.6.0"  # the lower bound of torch in setup.cfg, which is that of transformers 5
OLDER = "2.4.1"  # a checkpoint's files also run with transformers 4.57 and this, without the package


@nox.session
@nox.parametrize("transformers", [nox.param(version, id=version) for version in CONSTRAINTS])
def tests(session: nox.Session, transformers: str) -> None:
    """Run the tests, or those that are named after `--`."""
    _install(session, CONSTRAINTS[transformers], extras=NEWEST_EXTRAS if transformers == "5" else EXTRAS)
    arguments = session.posargs or ["-n", "2", "--dist", "loadfile"]
    session.run("python", "-c", "import transformers; print('transformers', transformers.__version__)")
    session.run("python", "-m", "pytest", "-q", *arguments)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the tests that take seconds."""
    _install(session, CONSTRAINTS["5"])
    session.run("python", "-m", "pytest", "-q", *(f"tests/{name.replace('/', '/test_')}.py" for name in QUICK))


@nox.session(python=PYTHONS)
@nox.parametrize(
    ("torch", "transformers"),
    [(FLOOR, "5"), (FLOOR, "4.57"), (OLDER, "4.57")],
    ids=[f"{FLOOR}-5", f"{FLOOR}-4.57", f"{OLDER}-4.57"],
)
def floors(session: nox.Session, torch: str, transformers: str) -> None:
    """Run the tests of the files that are copied into checkpoints, on old versions of torch."""
    if session.python == "3.13" and transformers == "4.57":
        session.skip("some pins of constraints-4.57.txt have no wheel for Python 3.13")
    lines = Path(CONSTRAINTS[transformers]).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith(("torch==", "sympy=="))]  # torch pins its sympy
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join([*lines, f"torch=={torch}"]), encoding="utf-8")
    if torch == FLOOR:
        _install(session, str(constraints), "--no-cache-dir")
    else:  # without the package, whose extras need a newer torch
        base = ("torch", "transformers", "numpy", "soundfile", "soxr", "hypothesis", "pytest", "pytest-timeout")
        session.install("-q", "--no-cache-dir", "-c", str(constraints), *base)
        session.env.update(ENVIRONMENT)
    session.run("python", "-m", "pytest", "-q", *(session.posargs or ["tests/travelling"]))


@nox.session
def deepspeed(session: nox.Session) -> None:
    """Training with DeepSpeed against training without."""
    _install(session, CONSTRAINTS["5"])
    # Built beside the torch that is there: alone it would fetch another.
    session.install("-q", "-c", CONSTRAINTS["5"], "--no-build-isolation", "deepspeed", env={"DS_BUILD_OPS": "0"})
    session.run("python", "-m", "pytest", "-q", "tests/training/test_launch.py", "-k", "deepspeed")


def _install(session: nox.Session, constraints: str, *options: str, extras: str = EXTRAS) -> None:
    # torch first and by its pin: whatever asks for it afterwards then finds it there.
    session.install("-q", *options, "-c", constraints, "torch")
    session.install("-q", "-c", constraints, "-e", f".[{extras}]")
    session.env.update(ENVIRONMENT)
