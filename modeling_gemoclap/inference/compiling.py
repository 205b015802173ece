"""Compilation of a model's audio tower for predictions of many clips."""

from __future__ import annotations

from torch import nn

from ..command_line.compilers import refuse_missing_compiler


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
