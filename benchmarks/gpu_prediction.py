"""Predict the hours of a training on H100s from counted operations and bytes; nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass

from counting import meta_model, step_flop

IEMOCAP = {"clips": 5531, "seconds": 4.55, "folds": 5, "epochs": 80, "batch": 32}
CORPUS_HOURS = 50_000
# Dense bf16 peak of an H100 SXM in operations per second, the assumed utilisation, and bytes per second for each GPU
# between the GPUs of a node and between nodes.
PEAK, UTILISATION, NODE, NETWORK = 989e12, 0.3, 450e9, 50e9
GPUS_OF_A_NODE = 8
MOST_GPUS = IEMOCAP["folds"] * GPUS_OF_A_NODE  # a batch of 32 clips is shared by at most 8 GPUs


@dataclass
class Prediction:
    """Hours of one cell of the paper's Table 1 and of an epoch over a large corpus, and the epoch's communication.

    Args:
        cell: Hours of all folds and epochs on IEMOCAP.
        epoch: Hours of an epoch over `CORPUS_HOURS`.
        communication: Share of the epoch that is spent on communication.
    """

    cell: float
    epoch: float
    communication: float


def gathered_bytes(batch: int, width: int, texts: int, processes: int) -> int:
    """Bytes that a process receives for the loss: embeddings, their gradients (summed in a ring), labels, counts."""
    others = processes - 1
    return others * (3 * batch * width * 4 * (1 + texts) + 2 * batch * 8 + 8)


def prediction(gpus: int) -> Prediction:
    """Predicted hours of WavLM-large with RoBERTa-base on H100s."""
    model, batch = meta_model("wavlm-large"), IEMOCAP["batch"]
    forward, _ = step_flop(model, "wavlm-large", 1, IEMOCAP["seconds"])
    clip = 3 * forward / (PEAK * UTILISATION)  # seconds
    clips = IEMOCAP["clips"] * 0.8 * IEMOCAP["epochs"] * IEMOCAP["folds"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    link = NODE if gpus <= GPUS_OF_A_NODE else NETWORK
    exchange = 0.0
    if gpus > 1:  # gradients in float32, all_reduce in a ring
        exchange = (8 * parameters * (gpus - 1) / gpus + gathered_bytes(batch, 512, 1, gpus)) / link
    step = batch * clip + exchange
    steps = CORPUS_HOURS * 3600 / IEMOCAP["seconds"] / (batch * gpus)
    return Prediction(clips * clip / min(gpus, MOST_GPUS) / 3600, steps * step / 3600, exchange / step)
