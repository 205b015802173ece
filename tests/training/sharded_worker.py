"""Run by torchrun: compare sharded parameters (FSDP2) with one process and the complete batch."""

import torch
import torch.distributed as dist
from accelerate import Accelerator
from distributed_worker import gradients, loss_of, make, parts, whole_batch, worst
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from worker_end import end_worker


def main():
    Accelerator(cpu=True)  # creates the process group
    rank, world = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    for objective in ("ml", "sl"):
        model = make(objective, "both", torch.float64)
        complete, part = parts(whole_batch(objective, torch.float64), rank, world, "even")
        expected_loss, expected = gradients(model, model, complete)
        audio = {name: complete[name] for name in ("input_features", "audio_attention_mask")}
        embeds = model.eval()(**audio).audio_embeds.detach()
        model.train().zero_grad()
        for layer in [*model.audio_model.layers, *model.text_model.encoder.layer]:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert isinstance(model, FSDPModule)
        errors = {}
        for chunk in (None, 3):
            model.zero_grad()
            loss = loss_of(model, model, part, rank, world, chunk)
            loss.backward()
            gradient = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
            errors[chunk] = worst(gradient, expected)
        errors["sharded"] = sum(p.to_local().numel() < p.numel() for p in model.parameters())
        errors["audio alone"] = (model.eval()(**audio).audio_embeds - embeds).abs().max().item()
        if rank == 0:
            print("RESULT", repr((objective, errors)), flush=True)
        del model
    end_worker()


if __name__ == "__main__":
    main()
