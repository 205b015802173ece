"""The tests on both ends of the supported versions: `nox`, `nox -s "tests(4.57)"`, `nox -- tests/test_encoders.py`.

Needs nothing but nox; each session makes an environment of its own from one of the two files of constraints.
"""

import nox

CONSTRAINTS = {"5": "constraints.txt", "4.57": "constraints-4.57.txt"}


@nox.session
@nox.parametrize("transformers", [nox.param(version, id=version) for version in CONSTRAINTS])
def tests(session: nox.Session, transformers: str) -> None:
    """Run the tests, or those that are named after `--`."""
    constraints = CONSTRAINTS[transformers]
    # torch first and by its pin: whatever asks for it afterwards then finds it there.
    session.install("-q", "-c", constraints, "torch")
    session.install("-q", "-c", constraints, "-e", ".[train,lora,tensorboard,demo,dev]")
    session.env.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    arguments = session.posargs or ["-n", "2", "--dist", "loadfile"]
    session.run("python", "-c", "import transformers; print('transformers', transformers.__version__)")
    session.run("python", "-m", "pytest", "-q", *arguments)
