"""Run by torchrun: pretraining on speaker clusters on two processes against one process with the complete batch."""

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
from modeling_gemoclap.objectives.speaker_clusters import trainer as speaker_trainer
from modeling_gemoclap.objectives.speaker_clusters.model import SpeakerPretraining

BATCH = {
    "speaker_labels": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2]),
    "cluster_labels": torch.tensor([0, 0, 1, 1, 0, 0, 2, 2, 0, 0, 2, 2, 1, 1, 0, 0]),
}


def make(task, dtype):
    torch.manual_seed(0)
    encoder = GEmoClapForXVector(GEmoClapConfig(audio_config("compact")))
    return SpeakerPretraining(encoder, 0 if task == "contrastive" else 3).to(dtype).train()


def complete_batch(dtype):
    features = torch.randn(16, 40, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    return {"input_features": features, "audio_attention_mask": torch.ones(16, 40), **BATCH}


def gradients(model, wrapped, batch, task):
    model.zero_grad()
    rank, world = (0, 1) if wrapped is model else (dist.get_rank(), dist.get_world_size())
    trainer = speaker_trainer.SpeakerTrainer.__new__(speaker_trainer.SpeakerTrainer)
    trainer.args = SimpleNamespace(world_size=world, process_index=rank)
    trainer.state = SimpleNamespace(global_step=3, max_steps=10)
    trainer._task, trainer._weight, trainer._temperature = task, 0.3, 0.1
    trainer._terms, trainer._term_count = {}, 0
    gather = (lambda tensor: tensor) if world == 1 else speaker_trainer.gather
    with patch.object(speaker_trainer, "gather", gather):
        loss = trainer.compute_loss(wrapped, batch)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def main():
    Accelerator(cpu=True)  # makes the process group
    rank, world = dist.get_rank(), dist.get_world_size()
    for dtype in (torch.float32, torch.float64):
        for task in ("contrastive", "multi-task", "adversarial"):
            batch, model = complete_batch(dtype), make(task, dtype)
            expected_loss, expected = gradients(model, model, batch, task)
            wrapped = DistributedDataParallel(model)
            part = {name: value.chunk(world)[rank] for name, value in batch.items()}
            loss, actual = gradients(model, wrapped, part, task)
            errors = {
                "loss": (GATHER(loss[None]).mean() - expected_loss).abs().item(),
                "gradient": worst(actual, expected),
            }
            with patch.object(speaker_trainer, "gather", without_gradient):
                errors["without gradient"] = worst(gradients(model, wrapped, part, task)[1], expected)
            if rank == 0:
                print("RESULT", repr((str(dtype), task, errors)), flush=True)
            del wrapped
    end_worker()


if __name__ == "__main__":
    sys.exit(main())
