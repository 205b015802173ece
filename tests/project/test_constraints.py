"""The pins of `constraints.txt`: one for every requirement and every supported version of Python."""

import ast
import configparser
import re

import pytest
from conftest import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
VERSIONS = re.findall(r":: Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])


def pins_for(version):
    """Pinned versions by package, as pip reads the file with a version of Python."""
    environment = default_environment() | {"python_version": version, "python_full_version": f"{version}.1"}
    found = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(environment):
            [specifier] = pin.specifier
            assert specifier.operator == "==", pin
            found.setdefault(canonicalize_name(pin.name), []).append(specifier.version)
    return found


def requirements():
    lines = SETUP["options"]["install_requires"].split("\n")
    for extra in SETUP["options.extras_require"].values():
        lines += extra.split("\n")
    return [Requirement(line) for line in lines if line.strip()]


def test_the_versions_are_those_that_are_promised():
    assert VERSIONS == ["3.10", "3.11", "3.12", "3.13"]
    assert SETUP["options"]["python_requires"] == f">={VERSIONS[0]}"
    assert f'target-version = "py{VERSIONS[0].replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_requirement_has_one_pin_that_it_allows(version):
    pins = pins_for(version)
    assert not [name for name, versions in pins.items() if len(versions) > 1], "two pins for one package"
    environment = default_environment() | {"python_version": version}
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        if name == "setuptools":  # of the environment, not of the project
            continue
        if requirement.marker and not requirement.marker.evaluate(environment):
            assert name not in pins
            continue
        [pinned] = pins[name]
        assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"


def test_pins_of_an_older_python_are_no_newer():
    old, new = pins_for(VERSIONS[0]), pins_for(VERSIONS[-1])
    for name, [version] in old.items():
        if name in new and new[name] != [version]:
            parts = [tuple(int(part) for part in one.split(".")) for one in (version, *new[name])]
            assert parts[0] < parts[1], name


def test_the_floor_of_torch_is_the_one_that_is_tested():
    """`nox -s floors` tests the lower bound of setup.cfg, and CONTRIBUTING.md records the result."""
    [floor] = re.findall(r'^FLOOR = "(.+?)"', (ROOT / "noxfile.py").read_text(), re.M)
    [torch] = [requirement for requirement in requirements() if requirement.name == "torch"]
    assert str(torch.specifier) == f">={floor.removesuffix('.0')}"
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if f"| {floor} |" in line]
    assert rows and all(re.search(r"\d{3} passed", row) for row in rows)


def test_no_pin_is_of_a_machine():
    assert not [pin for pin in PINS if re.match("nvidia|cuda|triton", pin.name) or "+" in str(pin.specifier)]


def test_the_code_is_written_for_the_oldest_python():
    """Syntax, and modules that came later."""
    oldest = tuple(map(int, VERSIONS[0].split(".")))
    files = [
        path for part in ("modeling_gemoclap", "tests", "benchmarks", "demo", "attacks") for path in (ROOT / part).rglob("*.py")
    ]
    for path in [*files, *ROOT.glob("*.py"), *ROOT.glob("web/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=oldest)
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert not names & {"tomllib"}, path
