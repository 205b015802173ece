"""Run by torchrun: compare loss and gradients of several processes with one process and the complete batch."""

import sys
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch.distributed as dist
from accelerate import Accelerator
from conftest import audio_config, text_config
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from worker_end import end_worker

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.objectives import classifier as classifier_module
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.objectives.gemo_clap import trainer as trainer_module
from modeling_gemoclap.objectives.gemo_clap.distillation import Distillation

GATHER = trainer_module.gather
KINDS = [(objective, similarity) for objective in ("emo", "ml", "sl") for similarity in ("cross", "intra", "both")]
KINDS += [("taught", "cross"), ("indexed", "cross")]  # SL-GEmo-CLAP with a teacher, and with distinct prompts


def make(objective, similarity, dtype):
    torch.manual_seed(0)
    model_class = GEmoClapForAudioClassification if objective == "classifier" else GEmoClapModel
    objective = "sl" if objective in ("taught", "indexed") else objective
    fields = {} if objective == "classifier" else {"objective": objective, "similarity": similarity}
    towers = {"audio_config": audio_config("compact"), "text_config": text_config()}
    return model_class(GEmoClapConfig(**towers, projection_dim=12, **fields)).to(dtype).train()


def whole_batch(objective, dtype):
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_features": torch.randn(8, 40, 16, generator=generator).to(dtype),
        "audio_attention_mask": torch.ones(8, 40),
        "input_ids": torch.randint(5, 300, (8, 6), generator=generator),
        "attention_mask": torch.ones(8, 6, dtype=torch.long),
        "emotion_labels": torch.tensor([0, 1, 2, 0, -1, 1, 2, 3]),
        "gender_labels": torch.tensor([0, 1, -1, 1, 0, 0, 1, 0]),
    }
    if objective == "ml":
        batch["gender_input_ids"] = batch["input_ids"].flip(0)
        batch["gender_attention_mask"] = batch["attention_mask"]
    if objective == "indexed":
        batch["input_ids"] = batch["input_ids"][[0, 1, 2, 0, 1, 1, 2, 0]]
    if objective == "taught":
        batch["teacher_embeds"] = F.normalize(torch.randn(8, 12, generator=generator), dim=1).to(dtype)
    return batch


def parts(batch, rank, world, division):
    """The complete batch and the part of this process: equal parts, the last part one clip shorter, or padded."""
    if division == "even":
        return batch, {name: value.chunk(world)[rank] for name, value in batch.items()}
    complete = {name: value[:-1] for name, value in batch.items()}
    if division == "uneven":
        return complete, {name: value[:-1].split(8 // world)[rank] for name, value in batch.items()}
    padded = {name: value.clone() for name, value in batch.items()}
    for name in ("emotion_labels", "gender_labels"):
        padded[name][-1] = -1
    if "teacher_embeds" in padded:
        padded["teacher_embeds"][-1] = 0
    return complete, {name: value.chunk(world)[rank] for name, value in padded.items()}


def with_distinct_prompts(batch):
    """Each prompt once, and the row of each clip's prompt, for all kinds of prompts."""
    batch = dict(batch)
    for kind in ("", "gender_") if "gender_input_ids" in batch else ("",):
        ids, index = batch[f"{kind}input_ids"].unique(dim=0, return_inverse=True)
        mask = torch.ones_like(ids)
        batch |= {f"{kind}input_ids": ids, f"{kind}attention_mask": mask, f"{kind}prompt_index": index}
    return batch


def loss_of(model, wrapped, batch, rank, world, chunk=None):
    """The loss of the trainer, without creating a complete trainer."""
    trainer_class = GEmoClapTrainer if hasattr(model, "text_model") else ClassifierTrainer
    trainer = trainer_class.__new__(trainer_class)
    trainer.args = SimpleNamespace(world_size=world, process_index=rank, label_smoothing_factor=0.0)
    trainer.accelerator = Accelerator(cpu=True)
    trainer._floors, trainer._distilled, trainer._chunk_size = (0.0, 0), 0.0, chunk
    trainer._terms, trainer._term_count = {}, 0
    class_embeds = F.normalize(torch.arange(48.0).cos().view(4, 12), dim=1)
    trainer._distillation = Distillation(class_embeds, scale=5.0) if "teacher_embeds" in batch else None
    single_process = {"gather": lambda tensor: tensor, "largest_batch": lambda rows, device: rows}
    alone = single_process if world == 1 else {"gather": trainer_module.gather}
    classifier_alone = {"gather": alone["gather"]}
    with patch.multiple(trainer_module, **alone), patch.multiple(classifier_module, **classifier_alone):
        return trainer.compute_loss(wrapped, batch)


def gradients(model, wrapped, batch, chunk=None):
    model.zero_grad()
    rank, world = (0, 1) if wrapped is model else (dist.get_rank(), dist.get_world_size())
    loss = loss_of(model, wrapped, batch, rank, world, chunk)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def worst(gradients, expected):
    """The largest relative error of the gradients. Small norms are replaced by a share of the total norm."""
    total = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    scale = {name: max(gradient.norm(), 1e-3 * total) for name, gradient in expected.items()}
    return max(((gradients[name] - expected[name]).norm() / scale[name]).item() for name in expected)


def without_gradient(tensor):
    """Gather as accelerate does: without gradient, except for local rows."""
    gathered = GATHER(tensor.detach()) if tensor.dtype.is_floating_point else GATHER(tensor)
    start = dist.get_rank() * len(tensor)
    return torch.cat([gathered[:start], tensor, gathered[start + len(tensor) :]])


def with_local_labels(tensor):
    """Targets from local labels, repeated as if all processes had the same."""
    return GATHER(tensor) if tensor.dtype.is_floating_point else tensor.repeat(dist.get_world_size())


SHORTCUTS = {
    "without gradient": without_gradient,
    "local labels": with_local_labels,
}


def main():
    Accelerator(cpu=True)  # creates the process group
    rank, world = dist.get_rank(), dist.get_world_size()
    for dtype in (torch.float32, torch.float64):
        for objective, similarity in [*KINDS, ("classifier", "none")]:
            for division in ("even", "uneven", "padded"):
                complete, part = parts(whole_batch(objective, dtype), rank, world, division)
                model = make(objective, similarity, dtype)
                expected_loss, expected = gradients(model, model, complete)
                part = with_distinct_prompts(part) if objective == "indexed" else part
                wrapped = DistributedDataParallel(model)
                reduced = []
                wrapped.register_comm_hook(reduced, counted_all_reduce)
                loss, gradient = gradients(model, wrapped, part)
                buckets = len(reduced)
                loss = GATHER(loss[None]).mean()
                errors = {"loss": (loss - expected_loss).abs().item(), "gradient": worst(gradient, expected)}
                if objective != "classifier":
                    cached_loss, cached = gradients(model, wrapped, part, chunk=-(-5 // world))  # cuts 4 by 3, 2 by 2
                    loss = GATHER(cached_loss[None]).mean()
                    errors["cached loss"] = (loss - expected_loss).abs().item()
                    errors["cached gradient"] = worst(cached, expected)
                    assert len(reduced) == 2 * buckets, "gradients are reduced once a step, with the last chunk"
                if division == "even" and objective != "classifier":
                    for name, shortcut in SHORTCUTS.items():
                        trainer_module.gather = shortcut
                        errors[name] = worst(gradients(model, wrapped, part)[1], expected)
                    trainer_module.gather = GATHER
                    errors["no gather"] = worst(gradients_without_gather(model, wrapped, part), expected)
                if rank == 0:
                    print("RESULT", repr((str(dtype), objective, similarity, division, errors)), flush=True)
            del wrapped
    end_worker()


def counted_all_reduce(reduced, bucket):
    reduced.append(bucket.index())
    return allreduce_hook(None, bucket)


def gradients_without_gather(model, wrapped, part):
    """Gradients of a loss that each process computes from its local clips only."""
    model.zero_grad()
    labels = {name: part[name] for name in ("emotion_labels", "gender_labels")}
    inputs = {name: value for name, value in part.items() if name not in (*labels, "teacher_embeds")}
    output = wrapped(**inputs)
    terms = model.objective_terms(output, *labels.values())
    trainer_module.contrastive_loss(terms).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    sys.exit(main())
