"""The packages: those that hold code, and `configs/`, which is installed as `modeling_gemoclap/configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["modeling_gemoclap*"]), "modeling_gemoclap.configs"],
    package_dir={"modeling_gemoclap.configs": "configs"},
)
