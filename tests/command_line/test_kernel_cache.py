"""The limit of oneDNN's cache of kernels."""

import os

import pytest

from modeling_gemoclap.command_line.failures import run_main
from modeling_gemoclap.command_line.kernel_cache import CAPACITY, KERNELS
from modeling_gemoclap.inference.loading import load_pipeline


@pytest.mark.parametrize("given", [None, "7"])
@pytest.mark.parametrize("start", ["command", "pipeline"])
def test_the_cache_is_limited_unless_its_capacity_is_given(monkeypatch, given, start):
    monkeypatch.setenv(CAPACITY, given or "")
    if given is None:
        monkeypatch.delenv(CAPACITY)
    if start == "command":
        run_main("test", lambda argv: None)
    else:
        with pytest.raises(ValueError, match="no such folder"):
            load_pipeline("nosuch")
    assert os.environ[CAPACITY] == (given or str(KERNELS))
