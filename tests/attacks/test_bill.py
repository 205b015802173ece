"""The bills of dependencies are complete and valid CycloneDX."""

import configparser
import importlib.util
import json
import sys

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("cyclonedx")
SPEC = importlib.util.spec_from_file_location("bill", ROOT / "release/bill.py")
bill = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bill)


@pytest.fixture(scope="module")
def installed():
    return bill.of_environment(sys.executable)


def names_of(text):
    return {(canonicalize_name(each["name"]), each["version"]) for each in json.loads(text)["components"]}


def test_every_pin_is_in_the_bill(installed):
    text = bill.complete(bill.of_pins(bill.read_pins(), installed), "1.2.3")
    pins = {(canonicalize_name(pin.name), each.version) for pin in bill.read_pins() for each in pin.specifier}
    content = json.loads(text)
    assert names_of(text) == pins and len(content["components"]) == len(pins) > 200
    assert content["metadata"]["component"]["name"] == "gemoclap"
    licences = {each["name"]: each.get("licenses") for each in content["components"]}
    assert licences["numpy"] and sum(map(bool, licences.values())) > len(licences) // 2


def test_the_bill_of_an_environment_has_what_the_package_requires(installed):
    text = bill.complete(installed, "1.2.3")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = {
        canonicalize_name(Requirement(line).name)
        for line in setup["options"]["install_requires"].split("\n")
        if line.strip()
    }
    found = {name for name, _ in names_of(text)}
    assert required <= found and "gemoclap" not in found
    assert str(ROOT) not in text and "file:" not in text
    assert not any("externalReferences" in each for each in json.loads(text)["components"])


def test_a_bill_that_is_not_valid_is_refused(installed):
    with pytest.raises(SystemExit, match="not valid CycloneDX"):
        bill.complete({**installed, "components": [{"type": "nothing", "name": "x", "bom-ref": "x"}]}, "1.2.3")
