"""Memory that libraries keep: oneDNN's kernels and the arenas of the C library."""

import os
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

from modeling_gemoclap.command_line import memory
from modeling_gemoclap.command_line.failures import run_main
from modeling_gemoclap.command_line.memory import ARENAS, CAPACITY, KERNELS
from modeling_gemoclap.inference.loading import load_pipeline

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
THREADS = """
import ctypes, sys, threading
from modeling_gemoclap.command_line.memory import limit_arenas
limit_arenas()
c = ctypes.CDLL(None)
c.malloc.restype = c.fopen.restype = ctypes.c_void_p
together = threading.Barrier(16)
threads = [threading.Thread(target=lambda: (together.wait(), c.malloc(1000), together.wait())) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = ctypes.c_void_p(c.fopen(sys.argv[1].encode(), b"w"))
c.malloc_info(0, file)
c.fclose(file)
"""
FREED = """
import ctypes
import psutil
from modeling_gemoclap.command_line.memory import return_free_memory
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
blocks = [c.malloc(2000) for _ in range(60_000)]
[ctypes.memset(block, 1, 2000) for block in map(ctypes.c_void_p, blocks)]
[c.free(ctypes.c_void_p(block)) for block in blocks[:-1]]  # the last one keeps the heap at its size
before = psutil.Process().memory_info().rss
return_free_memory()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


def _run(code, *arguments, **environment):
    command, environment = [sys.executable, "-c", code, *arguments], {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@glibc
@pytest.mark.parametrize("given", [None, "5"])
def test_threads_share_arenas_unless_their_number_is_given(tmp_path, given):
    _run(THREADS, str(tmp_path / "heaps"), **({"MALLOC_ARENA_MAX": given} if given else {}))
    assert (tmp_path / "heaps").read_text().count("<heap nr=") == int(given or ARENAS)


@glibc
def test_free_memory_is_returned():
    assert float(_run(FREED)) > 80


def test_another_c_library_is_no_error(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.limit_arenas()
    memory.return_free_memory()


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
