"""Compare the clips per second of train.py with a bare PyTorch loop over the same batches, collated beforehand.

    python benchmarks/training_loop.py [--epochs 5] [--models compact wav2vec2]

The bare loop is forward pass, backward pass, gradient clipping, optimizer step and `zero_grad`. The compact encoder
has the settings of configs/compact.yaml; wav2vec2-base has random weights and reads its waves from files. Clips are
noise with the lengths of Emo-DB and RAVDESS. An epoch of train.py, from its begin to the begin of the next, and an
epoch of the bare loop are timed in turn, in one process.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from documents import render, write_section
from families import AUDIO
from harness import ROOT, parser_of
from lengths import clip_seconds, write_noise
from limits import count_flop, matrix_peak
from transformers import TrainerCallback, Wav2Vec2Model

from modeling_gemoclap.runs.fit import build_trainer
from modeling_gemoclap.runs.recipe import parse_recipe
from modeling_gemoclap.runs.train import plain_run
from modeling_gemoclap.training.clips import audio_inputs

CLIPS = {"compact": 240, "wav2vec2": 8}  # of an epoch
TITLES = {"compact": "compact encoder, batch 16", "wav2vec2": "wav2vec2-base, batch 4 x 1.5 s"}
COMPACT = ("--config", str(ROOT / "configs" / "compact.yaml"))
WAV2VEC2 = ("--learning_rate", "2e-5", "--lr_scheduler_type", "constant", "--per_device_train_batch_size", "4")
WAV2VEC2 += ("--max_seconds", "1.5")


class InTurn(TrainerCallback):
    """Times epochs of the trainer, and after each of them an epoch of the bare loop over its batches."""

    def __init__(self, trainer):
        self.trainer, self.start, self.batches = trainer, None, []
        self.ours, self.bare, self.reading = [], [], []  # seconds of each epoch

    def on_train_begin(self, args, state, control, **kwargs):
        """Copy the model, and the optimizer for the copy."""
        self.model = copy.deepcopy(self.trainer.trained_model).train()
        optimizer = self.trainer.optimizer
        settings = {name: value for name, value in optimizer.param_groups[0].items() if name in ("lr", "weight_decay")}
        kind = type(getattr(optimizer, "optimizer", optimizer))
        self.optimizer = kind([p for p in self.model.parameters() if p.requires_grad], **settings)

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Stop the clock of the epoch that has ended, run its batches in the bare loop, and start the clock."""
        if self.start is not None:
            self.ours.append(time.perf_counter() - self.start)
            self.bare.append(self.bare_epoch())
        clips = self.trainer.train_dataset
        order = list(self.trainer._get_train_sampler())
        chunks = [order[at : at + args.train_batch_size] for at in range(0, len(order), args.train_batch_size)]
        began = time.perf_counter()
        self.batches = [self.trainer.data_collator([clips[index] for index in chunk]) for chunk in chunks]
        self.start = time.perf_counter()
        self.reading.append(self.start - began)

    def bare_epoch(self) -> float:
        """Seconds of the bare loop."""
        start = time.perf_counter()
        for batch in self.batches:
            loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.args.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.perf_counter() - start

    def text_share(self) -> float:
        """Share of the text tower in the forward and backward passes of an epoch."""

        def seconds_of(passes) -> float:
            start = time.perf_counter()
            for batch in self.batches:
                passes(batch).sum().backward()
            return time.perf_counter() - start

        model = self.model
        text = [seconds_of(lambda b: model.get_text_features(b["input_ids"], b["attention_mask"])) for _ in range(3)]
        audio = [seconds_of(lambda b: model.get_audio_features(**audio_inputs(b))) for _ in range(3)]
        return min(text) / (min(text) + min(audio))


def measure(folder: Path, name: str, workers: int, epochs: int) -> dict:
    """Train a model, and return medians of clips per second and the shares of the loop."""
    corpus, run = folder / f"corpus-{name}", folder / f"run-{name}-{workers}"
    settings = COMPACT if name == "compact" else (*WAV2VEC2, "--audio_model", str(folder / "wav2vec2"))
    options = {"data_dir": corpus, "output_dir": run, "num_train_epochs": epochs + 2, "save_strategy": "no"}
    options |= {
        "dataloader_drop_last": "false",
        "logging_strategy": "epoch",
        "disable_tqdm": "true",
        "use_cpu": "true",
    }
    options |= {"dataloader_num_workers": workers, "feature_cache_dir": folder / "cache", "report_to": "none"}
    options |= {"dataloader_persistent_workers": str(workers > 0).lower()}
    arguments = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    trainer, _ = build_trainer(plain_run(parse_recipe([*settings, *arguments])), resumed=False)
    clock = InTurn(trainer)
    trainer.add_callback(clock)
    trainer.train()
    ours, bare, reading = (times[1:] for times in (clock.ours, clock.bare, clock.reading))  # the first warms up
    return {
        "title": TITLES[name],
        "workers": workers,
        "ours": CLIPS[name] / statistics.median(ours),
        "bare": CLIPS[name] / statistics.median(bare),
        "data": statistics.median(reading) / statistics.median(bare),
        "text": clock.text_share(),
        "flops": count_flop(clock.bare_epoch) / statistics.median(bare),
    }


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs of each loop")
    parser.add_argument("--models", nargs="+", choices=CLIPS, default=list(CLIPS), help="the models")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1], help="numbers of workers")
    options = parser.parse_args()
    rows, peak = [], matrix_peak()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in options.models:
            seconds = np.random.default_rng(1).permutation(clip_seconds()[0])[: CLIPS[name]]
            write_noise(folder / f"corpus-{name}", seconds)
            if name == "wav2vec2":
                torch.manual_seed(0)
                Wav2Vec2Model(AUDIO["wav2vec2-base"].config()).save_pretrained(folder / name)
                AUDIO["wav2vec2-base"].save_extractor(folder / name)
            epochs = options.epochs if name == "compact" else 2  # an epoch takes ten seconds
            rows += [measure(folder, name, workers, epochs) for workers in options.workers]
    text = render("training_loop", rows=rows, peak=peak, epochs=options.epochs)
    write_section("python benchmarks/training_loop.py", text)


if __name__ == "__main__":
    main()
