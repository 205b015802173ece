"""The compiler that `torch.compile` needs."""

from __future__ import annotations


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
