"""Write the bills of dependencies of a release as CycloneDX 1.6, with the licences that packages declare.

    python release/bill.py --base ENVIRONMENT/bin/python

`gemoclap-VERSION.base.cdx.json` has what an environment contains in which only the package was installed;
`gemoclap-VERSION.pins.cdx.json` has every pin of constraints.txt, with the licences of those that are installed with
this Python. `release/check.py` writes both into dist/. The project itself is the component of the metadata.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NAME, LICENCE = "gemoclap", "Apache-2.0"


def of_environment(python: str | Path) -> dict:
    """The bill of everything that is installed in an environment, without places on this machine.

    Args:
        python: The Python of the environment.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python), "--output-reproducible"]
    command += ["--no-validate", "--short-PURLs", "--of", "JSON", "--sv", "1.6"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    bill = json.loads(done.stdout)
    for component in bill["components"]:
        component.pop("externalReferences", None)  # addresses of pages, and of folders on this machine
    return bill


def read_pins(path: Path = ROOT / "constraints.txt") -> list[Requirement]:
    """The pins of a file of constraints, also those for other versions of Python."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def of_pins(pins: list[Requirement], installed: dict) -> dict:
    """The bill of pins. A pin that is not installed has its name, version and address in the registry alone.

    Args:
        pins: From `read_pins`.
        installed: The bill of an environment in which most of them are installed.
    """
    known = {(canonicalize_name(each["name"]), each["version"]): each for each in installed["components"]}
    components = {}
    for pin in pins:
        name, [version] = canonicalize_name(pin.name), [each.version for each in pin.specifier]
        plain = {"type": "library", "name": pin.name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        component = known.get((name, version), plain) | {"bom-ref": f"{name}=={version}"}
        components[component["bom-ref"]] = component
    return {**installed, "components": list(components.values()), "dependencies": []}


def complete(bill: dict, version: str) -> str:
    """A bill with the project as its subject, as text.

    Args:
        bill: A bill.
        version: Version of the project.

    Raises:
        SystemExit: If it is not valid CycloneDX.
    """
    subject = {"type": "library", "name": NAME, "version": version, "bom-ref": NAME}
    subject |= {"licenses": [{"license": {"id": LICENCE}}]}
    components = [each for each in bill["components"] if canonicalize_name(each["name"]) != NAME]
    kept = {NAME, *(each["bom-ref"] for each in components)}
    places = {each["bom-ref"]: NAME for each in bill["components"] if canonicalize_name(each["name"]) == NAME}
    dependencies = {}
    for each in bill["dependencies"]:
        place = places.get(each["ref"], each["ref"])
        if place in kept and (place == NAME or place not in dependencies):
            wanted = [name for name in each.get("dependsOn", []) if name in kept - {NAME}]
            dependencies[place] = {"ref": place, **({"dependsOn": wanted} if wanted else {})}
    metadata = bill.get("metadata", {}) | {"component": subject}
    bill = {**bill, "metadata": metadata, "components": components, "dependencies": list(dependencies.values())}
    text = json.dumps(bill, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the bill of dependencies is not valid CycloneDX: {error}")
    return text


def write_bills(base: str | Path, version: str, output: Path = ROOT / "dist") -> list[Path]:
    """Write both bills.

    Args:
        base: The Python of an environment in which only the package was installed.
        version: Version of the project.
        output: Folder of the files.

    Returns:
        The files.
    """
    output.mkdir(parents=True, exist_ok=True)
    bills = {"base": of_environment(base), "pins": of_pins(read_pins(), of_environment(sys.executable))}
    paths = [output / f"{NAME}-{version}.{name}.cdx.json" for name in bills]
    for path, bill in zip(paths, bills.values(), strict=True):
        path.write_text(complete(bill, version), encoding="utf-8")
    return paths


def main() -> None:
    """Parse the options and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="Python of an environment with the package alone")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the files (default: dist)")
    options = parser.parse_args()
    text = (ROOT / "modeling_gemoclap/version.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.+)"', text)[1]
    for path in write_bills(options.base, version, options.output):
        print(f"{path}: {len(json.loads(path.read_text(encoding='utf-8'))['components'])} components")


if __name__ == "__main__":
    main()
