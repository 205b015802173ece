"""Evaluation of the checkpoint of a single fold."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..corpora.files import read_object
from ..corpora.manifest import Corpus
from ..inference.classifier import AudioClassifier
from ..inference.loading import load_pipeline
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .clips import EvaluationOptions, evaluate_clips
from .pooled_clips import PooledClips
from .prediction_files import FoldPredictions, load_fold, load_fold_if_valid, predictions_identity, save_fold
from .trained_folds import TrainedFold


def evaluate_fold(
    fold: TrainedFold, corpus: Corpus, options: EvaluationOptions, pooled: PooledClips | None = None
) -> FoldPredictions:
    """Evaluate the checkpoint of a fold on its test clips, or load the predictions of an earlier evaluation.

    Args:
        fold: The fold.
        corpus: All clips of the protocol.
        options: How clips are evaluated.
        pooled: Pooled audio of clips that other folds with the same encoder have computed.

    Returns:
        The predictions. The rows have a column `gender_probe`, the gender predicted from the embedding; it is empty
        for a control model, without two genders in training, and with `gender_probe=False`.
    """
    test = fold.protocol.test(corpus, fold.number).where("emotion", bool)
    development = read_object(fold.folder / "fold.json", dev=list)["dev"]
    made_of = predictions_identity(
        fold.folder,
        test,
        protocol=fold.protocol.sha256,
        on_bad_audio=options.on_bad_audio,
        temperature=read_object(fold.folder / "config.json").get("calibration_temperature"),
        **({} if options.gender_probe else {"gender_probe": False}),
    )
    folder = fold.folder / "answers"
    known = load_fold_if_valid(folder, made_of)
    if known is not None:
        return known
    pipe = load_pipeline(str(fold.folder), options.device)
    if pooled is not None:
        pooled.attach(pipe.model)
    allow = not fold.protocol.speaker_independent
    evaluation = evaluate_clips(
        pipe, test, EvaluationOptions(options.batch_size, options.on_bad_audio, allow_seen_speakers=allow)
    )
    genders = None
    if options.gender_probe and not fold.control:
        train = fold.protocol.training(corpus, fold.number)
        train = train.of_speakers(exclude=development) if development else train
        genders = _probe_gender(pipe, train, evaluation.embeddings, options.batch_size)
    columns = [{"gender_probe": gender} for gender in genders or [""] * len(evaluation.rows)]
    save_fold(folder, evaluation, made_of, columns)
    return load_fold(folder)


def _probe_gender(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, train: Corpus, embeddings: list[np.ndarray], batch_size: int
) -> list[str] | None:
    """Predict gender by logistic regression on frozen embeddings, fitted on the fold's training clips.

    Args:
        pipe: Pipeline of the fold's checkpoint.
        train: Training clips of the fold.
        embeddings: Embeddings of the test clips.
        batch_size: Clips in a batch.

    Returns:
        Predicted gender of each test clip; None if fewer than two genders occur in training.
    """
    train = train.where("gender", bool)
    genders = train.column("gender").to_pylist()
    if len(set(genders)) < 2:
        return None
    answers = pipe(train.recordings(), batch_size=batch_size, on_error="return", return_embeddings=True)
    pairs = [
        (answer["embedding"], gender) for answer, gender in zip(answers, genders, strict=True) if "error" not in answer
    ]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(np.stack([embedding for embedding, _ in pairs]), [gender for _, gender in pairs])
    return probe.predict(np.stack(embeddings)).tolist()
