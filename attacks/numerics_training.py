"""Trainings that turn non-finite: each must stop, and name the step, the clips and the last good checkpoint."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from attack import ROOT, Attack
from safetensors.torch import load_file

RATE, EMOTIONS = 16000, ("angry", "happy", "sad")
# Run by every process: from a step on, the loss, the gradient or a weight is not finite.
SCRIPT = """
import os, sys
import torch
kind, step, classes = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
sys.argv = ["train.py", *sys.argv[4:]]
sys.path.insert(0, os.environ["ATTACKED"])
from importlib import import_module
from modeling_gemoclap.cli import COMMANDS
from modeling_gemoclap.command_line.failures import run_main

class Infinite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()
    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")

module, name = classes
trainer_class = getattr(import_module(module), name)
original = trainer_class.compute_loss

def compute_loss(self, model, inputs, **kwargs):
    loss = original(self, model, inputs, **kwargs)
    if self.state.global_step < step or self.args.process_index != self.args.world_size - 1:
        return loss
    return {"loss": lambda: loss * float("nan"), "gradient": lambda: Infinite.apply(loss)}.get(kind, lambda: loss)()

trainer_class.compute_loss = compute_loss
if kind == "weight":
    update = torch.optim.Adam.step
    steps = []
    def overflow(self, *args, **kwargs):
        result = update(self, *args, **kwargs)
        steps.append(1)
        if len(steps) > step:
            self.param_groups[0]["params"][-1].data.view(-1)[0] = float("inf")
        return result
    torch.optim.Adam.step = overflow
run_main("train.py", import_module(f"modeling_gemoclap{COMMANDS['train']}").main)
"""
PACKAGE = "modeling_gemoclap.objectives"
TRAINERS = {  # objective: trainer, options
    "contrastive": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ()),
    "ml": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ("--objective", "ml")),
    "emo": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ("--objective", "emo")),
    "gradient cache": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ("--contrastive_chunk_size", "5")),
    "classifier": (f"{PACKAGE}.classifier,ClassifierTrainer", ("--head", "classifier")),
    "supcon": (f"{PACKAGE}.two_stage.trainer,SupConTrainer", ("--head", "supcon", "--per_device_train_batch_size", "8")),
    "speaker": (f"{PACKAGE}.speaker_clusters.trainer,SpeakerTrainer", ("--head", "speaker", "--speaker_embeddings")),
}
WAYS = {
    "plain": (),
    "accumulation": ("--gradient_accumulation_steps", "2"),
    "bf16": ("--bf16", "true"),
    "resumed": (),
    "two processes": (),
}


def write_corpus(folder: Path) -> Path:
    """Four speakers with four tones for each of three emotions, and embeddings of the speakers' clips."""
    folder.mkdir(parents=True)
    rows, generator = [], np.random.default_rng(0)
    for speaker in range(4):
        for emotion in range(3):
            for number in range(4):
                rows.append([f"{speaker}{emotion}{number}.wav", EMOTIONS[emotion], "fm"[speaker % 2], f"{speaker}"])
                time_axis = np.arange(int((0.3 + 0.1 * number) * RATE)) / RATE
                tone = 0.1 * np.sin(2000 * (emotion + 1) * time_axis) + 0.01 * generator.standard_normal(len(time_axis))
                soundfile.write(folder / rows[-1][0], tone, RATE)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "emotion", "gender", "speaker_id"], *rows])
    vectors = np.eye(8)[[int(row[0][1]) for row in rows]] + 0.1 * generator.standard_normal((len(rows), 8))
    np.savez(folder / "vectors.npz", file_name=np.array([row[0] for row in rows]), embeddings=vectors)
    return folder


def train(folder: Path, corpus: Path, run: str, head: str, kind: str, step: int, *options: str, two: bool = False):
    """Train in a process of its own, or in two; the loss, gradient or a weight is not finite from a step on."""
    (folder / "failing.py").write_text(SCRIPT)
    classes, own = TRAINERS[head]
    own = (*own, str(corpus / "vectors.npz")) if own and own[-1] == "--speaker_embeddings" else own
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2") if two else ()
    command = [sys.executable, *launcher, str(folder / "failing.py"), kind, str(step), classes, "--config"]
    command += [str(ROOT / "tests" / "tiny.yaml"), "--data_dir", str(corpus), "--output_dir", str(folder / run)]
    command += ["--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "1", *own, *options]
    environment = {**os.environ, "ATTACKED": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
