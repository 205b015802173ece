"""The release takes the name of a tag from git: it is data, and no shell may run what it contains."""

import os
import shutil
import subprocess

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = ROOT / ".github/workflows"


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_commands_of_a_workflow_contain_no_names_from_git(path):
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        for step in job["steps"]:
            assert "${{ github." not in step.get("run", ""), step


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("tag", ["v1.2.3", "v1;touch${IFS}ran", "v1';touch${IFS}ran;'", 'v1"`touch${IFS}ran`"'])
def test_make_passes_a_tag_as_one_word(tag, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\n')
    (tools / "python").chmod(0o755)
    (tmp_path / "installed").touch()
    make = ["make", "-s", "-f", ROOT / "Makefile", "-o", tmp_path / "installed", "release-check", f"VENV={tmp_path}"]
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([*make, f"TAG={tag}"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert not (tmp_path / "ran").exists()
    words = (tmp_path / "words").read_text().splitlines()
    assert words == ["release/check.py", "--tag", tag.replace("${IFS}", "")], "make itself expands ${IFS}"
