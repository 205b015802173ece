"""Trainings that turn non-finite: each must stop, and name the step, the clips and the last good checkpoint."""

from __future__ import annotations

import csv
import importlib
import os
import re
import runpy
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import soundfile
from attack import ROOT, Attack
from safetensors.torch import load_file

FAILING = ROOT / "attacks" / "numerics_failing.py"
RATE, EMOTIONS = 16000, ("angry", "happy", "sad")
PACKAGE = "modeling_gemoclap.objectives"
TRAINERS = {  # objective: trainer, options
    "contrastive": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ()),
    "ml": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ("--objective", "ml")),
    "emo": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ("--objective", "emo")),
    "gradient cache": (f"{PACKAGE}.gemo_clap.trainer,GEmoClapTrainer", ("--contrastive_chunk_size", "5")),
    "classifier": (f"{PACKAGE}.classifier,ClassifierTrainer", ("--head", "classifier")),
    "supcon": (f"{PACKAGE}.two_stage.trainer,SupConTrainer", ("--head=supcon", "--per_device_train_batch_size=8")),
    "speaker": (f"{PACKAGE}.speaker_clusters.trainer,SpeakerTrainer", ("--head", "speaker", "--speaker_embeddings")),
}
BF16, ACCUMULATION = ("--bf16", "true"), ("--gradient_accumulation_steps", "2")
WAYS = {"plain": (), "accumulation": ACCUMULATION, "bf16": BF16, "resumed": (), "two processes": ()}
KINDS = ("loss", "gradient", "weight")


def write_corpus(folder: Path) -> Path:
    """Four speakers with four tones for each of three emotions, and embeddings of the speakers' clips."""
    folder.mkdir(parents=True)
    rows, generator = [], np.random.default_rng(0)
    for speaker in range(4):
        for emotion in range(3):
            for number in range(4):
                rows.append([f"{speaker}{emotion}{number}.wav", EMOTIONS[emotion], "fm"[speaker % 2], f"{speaker}"])
                time = np.arange(int((0.3 + 0.1 * number) * RATE)) / RATE
                noise = 0.01 * generator.standard_normal(len(time))
                soundfile.write(folder / rows[-1][0], 0.1 * np.sin(2000 * (emotion + 1) * time) + noise, RATE)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "emotion", "gender", "speaker_id"], *rows])
    vectors = np.eye(8)[[int(row[0][1]) for row in rows]] + 0.1 * generator.standard_normal((len(rows), 8))
    np.savez(folder / "vectors.npz", file_name=np.array([row[0] for row in rows]), embeddings=vectors)
    return folder


def train(folder: Path, corpus: Path, run: str, head: str, kind: str, step: int, *options: str, two: bool = False):
    """Train in a process of its own, or in two; the loss, gradient or a weight is not finite from a step on."""
    classes, own = TRAINERS[head]
    own = (*own, str(corpus / "vectors.npz")) if own and own[-1] == "--speaker_embeddings" else own
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2") if two else ()
    words = [str(FAILING), kind, str(step), classes, "--config", str(ROOT / "tests" / "tiny.yaml")]
    words += ["--data_dir", str(corpus), "--output_dir", str(folder / run), "--num_train_epochs", "3"]
    words += ["--save_strategy", "steps", "--save_steps", "1", *own, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if not two:
        return _forked(words, environment, folder / "stderr")
    command = [sys.executable, *launcher, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def _forked(words: list[str], environment: dict, log: Path) -> subprocess.CompletedProcess:
    """Run the script in a fork of this process, which has imported the libraries."""
    importlib.import_module("modeling_gemoclap.runs.train")
    with open(log, "wb") as file:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                os.environ.update(environment)
                os.chdir(ROOT)
                sys.argv, sys.stderr = words, os.fdopen(2, "w", buffering=1)
                runpy.run_path(words[0], run_name="__main__")
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else bool(end.code)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
    text = log.read_text(encoding="utf-8", errors="replace")
    return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), "", text)


def check_report(done, folder: Path, corpus: Path, step: int, kind: str, checkpoint: Path | None) -> None:
    """Check what a training reported that turned non-finite in the step after `step`.

    Raises:
        ValueError: If the step, the clips or the last good checkpoint is missing, wrong or damaged.
    """
    found = re.search(r"train.py: (.*)", done.stderr)
    message = found[1] if found else done.stderr[-300:]
    if done.returncode == 0 or not found or "Traceback" in done.stderr.partition("train.py: ")[0]:
        raise ValueError(f"status {done.returncode}: {message}")
    if not re.search(rf"step {step + 1} of \d+", message):
        raise ValueError(f"step {step + 1} is not named: {message}")
    what = {"loss": "the loss is", "gradient": "the norm of the gradient is", "weight": "weights are not finite"}[kind]
    if what not in message:
        raise ValueError(f"not {what!r}: {message}")
    clips = re.search(r"[Tt]he clips(?: of the step)?: (.*?)(?:\. Affected|$)", message)
    names = re.findall(r"[\w/]+\.wav", clips[1]) if clips else []
    if not names or not all((corpus / name.rpartition(": ")[2]).is_file() for name in names):
        raise ValueError(f"the clips are not named: {message}")
    good = re.search(r"Last good checkpoint: (.*?)\. (?:Check|Give)", message)
    if good is None or good[1] != (str(checkpoint) if checkpoint else "none"):
        raise ValueError(f"the last good checkpoint is not {checkpoint}: {message}")
    weights = load_file(checkpoint / "model.safetensors").values() if checkpoint else ()
    if not all(value.isfinite().all() for value in weights):
        raise ValueError(f"{checkpoint} is not finite")
    left = [path for path in folder.glob("checkpoint-*") if int(path.name.rpartition("-")[2]) > step]
    if left or (folder / "model.safetensors").exists():
        raise ValueError(f"weights were saved after the step: {left}")


def attack_trainings(attack: Attack, folder: Path) -> None:
    """Every objective, as it is, with accumulation, bf16, after a resume, and in two processes."""
    corpus, number = write_corpus(folder / "tones"), 0
    pairs = [(head, way) for way in WAYS for head in TRAINERS]
    pairs = [pair for pair in pairs if pair[1] != "accumulation" or pair[0] == "classifier"]  # the others refuse it
    cases = [(*pair, KINDS[(place + turn) % 3]) for turn in range(3) for place, pair in enumerate(pairs)]
    if attack.options.small:
        cases = [("classifier", "plain", "loss")]
    for head, way, kind in cases:
        if attack.seconds_left() < 15 and number:
            break
        number += 1
        run = folder / f"run{number}"
        with attack.case(f"trainings that turn non-finite: {way}", f"{head}, {kind}"):
            options, two, step, checkpoint = WAYS[way], way == "two processes", 2, run / "checkpoint-2"
            if two and head in ("contrastive", "ml", "emo", "gradient cache", "classifier"):
                options = (*options, "--per_device_train_batch_size", "6")
            if two and head == "supcon":
                options = (*options, "--per_device_train_batch_size", "4")
            if way == "resumed":
                train(folder, corpus, run.name, head, "loss", 2, *options)
                options = (*options, "--resume_from_checkpoint", str(checkpoint))
            done = train(folder, corpus, run.name, head, kind, step, *options, two=two)
            check_report(done, run, corpus, step, kind, checkpoint)
