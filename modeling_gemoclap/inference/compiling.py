"""Compilation of a model's audio tower for predictions of many clips."""

from __future__ import annotations

from torch import nn


def compile_audio_tower(model: nn.Module, backend: str = "inductor") -> None:
    """Compile the audio tower of a model by `torch.compile`, with dynamic numbers of clips and samples.

    The first batch waits for the compiler; later batches of any lengths use the same code, except for a batch of one
    clip, which is compiled once more. The names of the weights do not change.

    Args:
        model: A model of this package, which is changed in place.
        backend: A backend of `torch.compile`.

    Raises:
        ValueError: If the model is on a CPU and there is no C++ compiler.
    """
    if backend == "inductor" and model.device.type == "cpu":
        refuse_missing_compiler("compile")
    model.audio_model.compile(dynamic=True, backend=backend)


def refuse_missing_compiler(option: str) -> None:
    """Check that torch finds the C++ compiler that it compiles with.

    Args:
        option: The option that needs it, for the error message.

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
            f"{option} needs a C++ compiler ({', '.join(name for name in names if name)}), and there is none: install "
            f"one (apt install g++), set the variable CXX to its path, or leave {option} out"
        ) from error
