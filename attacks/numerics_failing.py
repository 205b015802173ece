"""Train as train.py does, but the loss, the gradient or a weight is not finite from a step on, in the last process.

numerics_failing.py KIND STEP MODULE,TRAINER OPTIONS...
"""

from __future__ import annotations

import sys
from importlib import import_module

import torch

from modeling_gemoclap.cli import COMMANDS
from modeling_gemoclap.command_line.failures import run_main


class Infinite(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx, loss: torch.Tensor) -> torch.Tensor:
        """Return a copy."""
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        """Return an infinite gradient."""
        return gradient * float("inf")


def damage_loss(trainer_class: type, kind: str, step: int) -> None:
    """Replace `compute_loss` of a trainer."""
    original = trainer_class.compute_loss

    def compute_loss(self, model, inputs, **kwargs):
        loss = original(self, model, inputs, **kwargs)
        if self.state.global_step < step or self.args.process_index != self.args.world_size - 1:
            return loss
        return loss * float("nan") if kind == "loss" else Infinite.apply(loss)

    trainer_class.compute_loss = compute_loss


def damage_weights(trainer_class: type, step: int) -> None:
    """Let the optimizer make a weight infinite."""
    original, update = trainer_class.create_optimizer, torch.optim.Adam.step
    trainers = []

    def create_optimizer(self, *args, **kwargs):
        trainers.append(self)
        return original(self, *args, **kwargs)

    def overflow(self, *args, **kwargs):
        result = update(self, *args, **kwargs)
        if trainers and trainers[-1].state.global_step >= step:
            self.param_groups[0]["params"][-1].data.view(-1)[0] = float("inf")
        return result

    trainer_class.create_optimizer, torch.optim.Adam.step = create_optimizer, overflow


if __name__ == "__main__":
    kind, step, (module, name) = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
    sys.argv = ["train.py", *sys.argv[4:]]
    trainer = getattr(import_module(module), name)
    damage_weights(trainer, step) if kind == "weight" else damage_loss(trainer, kind, step)
    run_main("train.py", import_module(f"modeling_gemoclap{COMMANDS['train']}").main)
