"""Compilation of a model's audio tower for predictions of many clips."""

from __future__ import annotations

from torch import nn
from transformers.utils import logging

logger = logging.get_logger(__name__)


def compile_audio_tower(model: nn.Module) -> None:
    """Compile the audio tower of a model by `torch.compile`, with dynamic numbers of clips and samples.

    The first batch waits for the compiler; later batches of any lengths use the same code, except for a batch of one
    clip, which is compiled once more. The names of the weights do not change.

    Args:
        model: A model of this package, which is changed in place.

    Raises:
        ValueError: If the model is on a CPU and there is no C++ compiler.
    """
    if model.device.type == "cpu":
        refuse_missing_compiler()
    model.audio_model.compile(dynamic=True)


def refuse_missing_compiler() -> None:
    """Check that torch finds the C++ compiler that it compiles with.

    Raises:
        ValueError: If it does not.
    """
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        names = config.cpp.cxx if isinstance(config.cpp.cxx, (list, tuple)) else [config.cpp.cxx]
        raise ValueError(
            f"compile needs a C++ compiler, and none of {', '.join(name for name in names if name)} is there: install "
            f"one (apt install g++), set the variable CXX to its path, or leave compile out"
        ) from error
