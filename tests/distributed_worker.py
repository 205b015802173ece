"""Run by torchrun: the gradient of several processes against that of one with the whole batch."""

import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
from conftest import audio_config, text_config
from torch.nn.parallel import DistributedDataParallel

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.training import trainer as trainer_module
from modeling_gemoclap.training.trainer import ClassifierTrainer


def make(objective="sl", similarity="cross", model_class=GEmoClapModel):
    torch.manual_seed(0)
    config = GEmoClapConfig(
        audio_config=audio_config("compact"),
        text_config=text_config(),
        projection_dim=12,
        objective=objective,
        similarity=similarity,
    )
    return model_class(config).train()


def whole_batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "input_features": torch.randn(8, 40, 16, generator=generator),
        "audio_attention_mask": torch.ones(8, 40),
        "input_ids": torch.randint(5, 300, (8, 6), generator=generator),
        "attention_mask": torch.ones(8, 6, dtype=torch.long),
        "emotion_labels": torch.tensor([0, 1, 2, 0, -1, 1, 2, 3]),
        "gender_labels": torch.tensor([0, 1, -1, 1, 0, 0, 1, 0]),
    }


def gradients(model, wrapped, batch):
    model.zero_grad()
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: model)
    world = 1 if wrapped is model else dist.get_world_size()
    trainer = SimpleNamespace(accelerator=accelerator, _floors=[], args=SimpleNamespace(world_size=world))
    trainer_class = GEmoClapTrainer if hasattr(model, "text_model") else ClassifierTrainer
    loss = trainer_class.compute_loss(trainer, wrapped, batch)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def main():
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    kinds = [(objective, similarity) for objective in ("emo", "ml", "sl") for similarity in ("cross", "both")]
    for objective, similarity in [*kinds, ("classifier", "none")]:
        batch = whole_batch()
        if objective == "ml":
            batch["gender_input_ids"] = batch["input_ids"].flip(0)
            batch["gender_attention_mask"] = batch["attention_mask"]
        if objective == "classifier":
            model = make(model_class=GEmoClapForAudioClassification)
        else:
            model = make(objective, similarity)
        wrapped = DistributedDataParallel(model)
        part = {name: value.chunk(world)[rank] for name, value in batch.items()}
        loss, found = gradients(model, wrapped, part)
        loss = trainer_module.gather(loss[None]).mean()
        gather, trainer_module.gather = trainer_module.gather, lambda tensor: tensor
        _, wrong = gradients(model, wrapped, part)
        expected_loss, expected = gradients(model, model, batch)
        trainer_module.gather = gather
        error = ((found - expected).norm() / expected.norm()).item()
        shortcut = ((wrong - expected).norm() / expected.norm()).item()
        if rank == 0:
            print(f"RESULT {objective} {similarity} {(loss - expected_loss).abs().item()} {error} {shortcut}")
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
