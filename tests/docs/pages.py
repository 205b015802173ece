"""Code blocks of the documentation, for the tests that run them."""

import re
import shlex
import subprocess
import sys

from conftest import ROOT

GEMOCLAP = shlex.join([sys.executable, "-m", "modeling_gemoclap"])


def blocks(page, language, heading=None):
    """The code blocks of a page in docs/, or of the part under a heading, without those of installation."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if heading:
        text = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)[1]
    return [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.S) if "pip install" not in block]


def run_shell(block, folder):
    """Run the commands of a block in a folder, each of which must succeed; the output of the last."""
    lines = [line for line in block.replace("\\\n", "").splitlines() if line.strip()]
    for line in lines:
        line = re.sub(r"(^|\| )gemoclap ", rf"\1{GEMOCLAP} ", line)
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_python(block, **names):
    """Run a block in this process, with names that the page takes as given; its names afterwards."""
    exec(compile(block, "block", "exec"), names)
    return names
