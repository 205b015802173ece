"""A Hugging Face Space: its front matter, its requirements, and the folder that docs/page.md makes."""

import configparser
import re
import subprocess
import sys

import yaml
from conftest import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lines(text):
    return sorted(line for line in text.splitlines() if line.strip())


def test_requirements_are_those_of_the_package():
    """But for Gradio, whose version the front matter has."""
    assert lines((ROOT / "space/requirements.txt").read_text()) == lines(SETUP["options"]["install_requires"])
    front_matter = yaml.safe_load((ROOT / "space/README.md").read_text().split("---")[1])
    assert front_matter["app_file"] == "app.py" and front_matter["sdk"] == "gradio"
    assert f"gradio=={front_matter['sdk_version']}\n" in (ROOT / "constraints.txt").read_text()


def test_the_folder_of_a_space_holds_all_that_the_page_needs(tmp_path):
    commands = re.search(r"```bash\n(mkdir page-space.*?)hf upload", (ROOT / "docs/page.md").read_text(), re.S)[1]
    commands = commands.replace("page-space", str(tmp_path / "page-space"))
    subprocess.run(["bash", "-ec", commands], cwd=ROOT, check=True)
    folder = tmp_path / "page-space"
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    code = (
        "import app; from modeling_gemoclap.inference.loading import load_config; import modeling_gemoclap.page.app; "
    )
    code += "print(load_config('base').model_type, modeling_gemoclap.page.app.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={"PATH": ""})
    assert done.stdout.strip() == f"gemoclap {folder}/modeling_gemoclap/page/app.py", done.stderr
