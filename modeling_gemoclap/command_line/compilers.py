"""`torch.compile` in training, and the compiler that it needs."""

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


def compile_layers(trainer) -> None:
    """Compile the Transformer layers of a trainer's model, with dynamic shapes, instead of the entire model.

    The backward pass of a compiled convolution has fixed shapes (torch 2.13), so that a compiled model with
    convolutions would be compiled again for each length. All layers of a tower use the same code. Without
    `torch_compile` nothing is changed.

    Args:
        trainer: A `transformers.Trainer` that was created with its model and is not yet run.
    """
    if not trainer.args.torch_compile:
        return
    from accelerate.utils import DynamoBackend

    from ..towers_gemoclap import transformer_layers

    options = {"backend": trainer.args.torch_compile_backend or "inductor", "mode": trainer.args.torch_compile_mode}
    model = trainer.accelerator.unwrap_model(trainer.model)
    for name, tower in model.named_modules():
        if name.rpartition(".")[2] in ("audio_model", "text_model"):
            for layer in transformer_layers(tower)[1]:
                layer.compile(dynamic=True, **options)
    trainer.accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
