"""The packages: those that hold code, and `configs/`, `checkpoints/` and `demo/`, which are installed with them."""

from setuptools import find_packages, setup

INCLUDED = ("configs", "checkpoints", "demo")

setup(
    packages=[*find_packages(include=["modeling_gemoclap*"]), *(f"modeling_gemoclap.{name}" for name in INCLUDED)],
    package_dir={f"modeling_gemoclap.{name}": name for name in INCLUDED},
)
