"""What is trained by the attacks on training: a tiny model, in six steps, with a checkpoint at every second one."""

from __future__ import annotations

from attack import ROOT

OPTIONS = ("--config", str(ROOT / "tests/tiny.yaml"), "--num_train_epochs", "2", "--seed", "3", "--report_to", "none")
OPTIONS += ("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "2")
OPTIONS += ("--logging_strategy", "steps", "--logging_steps", "2")  # every checkpoint follows an entry of the log
NOISY = ("--max_seconds", "0.4", "--time_warp", "0.1", "--mel_warp", "0.1", "--projection_dropout", "0.2")
TWO_CORPORA = "two corpora"
VARIANTS = {  # what is trained: options, number of processes, corpus
    "one process": ((*NOISY,), 1, "tones"),
    "gradient caching": ((*NOISY, "--contrastive_chunk_size", "5"), 1, "tones"),
    "streamed Parquet shards": ((*NOISY, "--dataloader_num_workers", "1"), 1, "shards"),
    "the best epoch kept": ((*NOISY, "--dev_speakers", "03", "--select", "dev"), 1, "tones"),
    "a classifier": (("--head", "classifier", "--max_seconds", "0.4"), 1, "tones"),
    "two processes": ((*NOISY, "--per_device_train_batch_size", "6"), 2, "tones"),
    "two processes, the best epoch kept": (
        (*NOISY, "--per_device_train_batch_size", "6", "--dev_speakers", "03", "--select", "dev"),
        2,
        "tones",
    ),
    "a last step within an epoch": ((*NOISY, "--max_steps", "4", "--lr_scheduler_type", "constant"), 1, "tones"),
    "the first of two stages": (("--head", "supcon", "--per_device_train_batch_size", "8"), 1, TWO_CORPORA),
}
