"""Run by torchrun: Xiang's first stage on two processes against one process with the complete batch."""

import sys
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch.distributed as dist
from accelerate import Accelerator
from conftest import audio_config
from distributed_worker import GATHER, without_gradient, worst
from torch.nn.parallel import DistributedDataParallel
from worker_end import end_worker

from modeling_gemoclap import GEmoClapConfig, GEmoClapForXVector
from modeling_gemoclap.objectives.two_stage import trainer as supcon_trainer


def make(dtype):
    torch.manual_seed(0)
    config = GEmoClapConfig(audio_config("compact"), pooling="self_attention")
    return GEmoClapForXVector(config).to(dtype).train()


def complete_batch(dtype):
    """Sixteen clips: eight positives, then eight negatives."""
    features = torch.randn(16, 40, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    mask = torch.ones(16, 40)
    mask[3, 30:] = 0
    return {"input_features": features, "audio_attention_mask": mask}


def part_of(batch, rank, world):
    """Return the positives of a process, then its negatives, as the sampler orders them."""
    return {name: torch.cat([half.chunk(world)[rank] for half in value.chunk(2)]) for name, value in batch.items()}


def gradients(model, wrapped, batch):
    model.zero_grad()
    rank, world = (0, 1) if wrapped is model else (dist.get_rank(), dist.get_world_size())
    trainer = supcon_trainer.SupConTrainer.__new__(supcon_trainer.SupConTrainer)
    trainer.args = SimpleNamespace(world_size=world, process_index=rank)
    trainer._temperature, trainer._margin = 0.07, (0.5, 0.4)
    trainer._terms, trainer._term_count = {}, 0
    alone = {"gather": lambda tensor: tensor} if world == 1 else {"gather": supcon_trainer.gather}
    with patch.multiple(supcon_trainer, **alone):
        loss = trainer.compute_loss(wrapped, batch)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def main():
    Accelerator(cpu=True)  # makes the process group
    rank, world = dist.get_rank(), dist.get_world_size()
    for dtype in (torch.float32, torch.float64):
        batch, model = complete_batch(dtype), make(dtype)
        expected_loss, expected = gradients(model, model, batch)
        wrapped = DistributedDataParallel(model)
        part = part_of(batch, rank, world)
        loss, actual = gradients(model, wrapped, part)
        errors = {
            "loss": (GATHER(loss[None]).mean() - expected_loss).abs().item(),
            "gradient": worst(actual, expected),
        }
        for name, shortcut in (("without gradient", without_gradient), ("no gather", lambda tensor: tensor)):
            with (
                patch.object(supcon_trainer, "gather", shortcut),
                patch.object(supcon_trainer, "info_nce", first_0(name)),
            ):
                errors[name] = worst(gradients(model, wrapped, part)[1], expected)
        if rank == 0:
            print("RESULT", repr((str(dtype), errors)), flush=True)
        del wrapped
    end_worker()


def first_0(name):
    """Without gathering, the index of the first positive of a process is 0."""
    real = supcon_trainer.info_nce
    return lambda a, p, n, t, first: real(a, p, n, t, 0 if name == "no gather" else first)


if __name__ == "__main__":
    sys.exit(main())
