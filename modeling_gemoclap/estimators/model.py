"""GEmo-CLAP in Python: load, predict, embed, fit, evaluate, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers.utils import logging

from ..command_line.shipped import shipped_checkpoint
from ..fingerprint import TRAINING_CLIPS
from ..inference.embeddings import embed_recordings, embed_texts
from ..inference.loading import load_pipeline
from ..inference.predictions import BATCH_SIZE, Prediction, PredictionOptions, predict
from ..inference.segments import Segment, TimelineOptions
from ..inference.timeline import timeline
from ..inference.turns import Turn
from ..prompts_gemoclap import canonical_emotion
from ..publishing.facts import CARD_FACTS, LICENCE_FILES
from .inputs import Labelled, labelled, recordings_of

if TYPE_CHECKING:  # evaluation requires the packages of gemoclap[train], prediction does not
    from huggingface_hub import CommitInfo

    from ..inference.index import Index
    from ..inference.indexing import IndexReport
    from ..inference.search import Hit
    from .report import EvaluationReport

logger = logging.get_logger(__name__)
# Files of a checkpoint that saving its model and processor does not write: the facts of its card, the sample of its
# training clips, and licences
DOCUMENTS = (CARD_FACTS, TRAINING_CLIPS, *LICENCE_FILES)


class GEmoClap:
    """A model of speech emotion: load or fit it, predict, embed, evaluate, and publish it.

    Recordings are a list, a column or a single one of anything that `read_audio` accepts: paths, bytes, arrays with
    their rate, `datasets.Audio`. A pandas DataFrame or a `datasets.Dataset` is accepted too, with a column `audio`,
    `path`, `file` or `file_name`.

    Args:
        recipe: A configuration of the package or a YAML file, for `fit`.
        device: Device of the model; None selects a GPU if there is one.

    Attributes:
        pipe: The pipeline of the model; None before `fit`.

    Example:
        >>> model = GEmoClap.from_pretrained("base")
        >>> model.predict(["a.wav", "b.mp3"])[0].label
        'angry'
    """

    def __init__(self, recipe: str = "compact", device: str | None = None):
        self.recipe, self.device, self.pipe = recipe, device, None
        self._name = "a model that was fitted in Python"
        self._documents: dict[str, bytes] = {}
        self._on_the_hub: tuple[str, str | None] | None = None  # repository and commit, whose documents are not read

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "base",
        device: str | None = None,
        revision: str | None = None,
        compile: bool = False,
    ) -> GEmoClap:
        """Load a checkpoint.

        Args:
            model: A folder, a name on the Hub, or `base` or `compact`, the checkpoints of this package.
            device: Device of the model; None selects a GPU if there is one.
            revision: Commit, tag or branch of a model on the Hub.
            compile: Whether to compile the audio encoder, for predictions of many recordings; see `load_pipeline`.

        Raises:
            ValueError: If there is no such checkpoint, or it predicts no emotions.
        """
        loaded = cls(device=device)
        loaded.pipe, loaded._name = load_pipeline(str(model), device, revision, compile), str(model)
        source = shipped_checkpoint(str(model))
        if Path(source).is_dir():
            loaded._documents = _documents(source)
        else:
            loaded._on_the_hub = source, getattr(loaded.pipe.model.config, "_commit_hash", None) or revision
        return loaded

    @property
    def classes_(self) -> np.ndarray:
        """The emotions of the model, in the order of the columns of `predict_proba`."""
        return np.array(self._fitted().model.config.emotions)

    def _fitted(self):
        if self.pipe is None:
            raise ValueError("the model is not fitted: call fit, or load one by GEmoClap.from_pretrained")
        return self.pipe

    def predict(
        self,
        recordings,
        labels: Sequence[str] | None = None,
        templates: Sequence[str] | str | None = None,
        gender: bool = False,
        batch_size: int = BATCH_SIZE,
        reject_below: float | None = None,
    ) -> list[Prediction]:
        """Predict the emotion of recordings.

        Args:
            recordings: See the class.
            labels: Words to choose from; None: the emotions of the model.
            templates: Prompt templates with `{}`; None: those of the model.
            gender: Whether to predict the gender too.
            batch_size: Number of recordings that are processed together.
            reject_below: Predictions whose score is below this number, between 0 and 1, have the label
                `NONE_OF_THESE`, and `best_label` has the label with the highest score; None rejects none. A warning
                is given if the scores are not calibrated.

        Raises:
            AudioError: If a recording cannot be used.
            ValueError: If labels, templates or `reject_below` are invalid, or the model cannot predict the gender.
        """
        options = PredictionOptions(labels, templates, gender, batch_size, reject_below)
        return list(predict(self._fitted(), recordings_of(recordings), options))

    def predict_proba(self, recordings, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """The scores of the emotions, `(recordings, classes)`, in the order of `classes_`. Rows sum to 1.

        They are probabilities only if the checkpoint is calibrated.
        """
        predictions = self.predict(recordings, batch_size=batch_size)
        scores = [[prediction.scores[name] for name in self.classes_] for prediction in predictions]
        return np.array(scores).reshape(len(predictions), len(self.classes_))

    def timeline(
        self, recording, segments: list[Turn] | None = None, options: TimelineOptions | None = None, **kwargs
    ) -> Iterator[Segment]:
        """Find the speech in a long recording, and the emotions in it; see `modeling_gemoclap.inference.timeline`.

        Args:
            recording: A path, or what `read_audio` accepts. A file is read as a stream.
            segments: Turns of speakers, from `read_rttm`; each becomes one segment.
            options: How the timeline is made; None: `TimelineOptions()`.
            **kwargs: Fields of `TimelineOptions` instead, such as `labels=["angry", "neutral"]`.

        Returns:
            An iterator over the segments. A recording without speech has none.

        Raises:
            AudioError: If the recording cannot be read; segments up to there were returned before.
            ValueError: If options are invalid.
        """
        if options is not None and kwargs:
            raise ValueError(f"give options, or {', '.join(kwargs)}, not both")
        return timeline(self._fitted(), recording, options or TimelineOptions(**kwargs), segments)

    def encode_audio(self, recordings, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Embed recordings, `(recordings, dimensions)`, float32; for GEmo-CLAP of unit length."""
        embeddings = list(embed_recordings(self._fitted(), recordings_of(recordings), batch_size))
        return np.stack(embeddings) if embeddings else np.zeros((0, self.pipe.model.config.projection_dim), np.float32)

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """Embed texts such as "a furious woman", `(texts, projection_dim)`, float32, unit length.

        Raises:
            ValueError: If the model has no text encoder, or there is no text.
        """
        return embed_texts(self._fitted(), [texts] if isinstance(texts, str) else list(texts))

    @staticmethod
    def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Cosine similarities of embeddings.

        Args:
            first: `(rows, dimensions)` or `(dimensions,)`.
            second: `(columns, dimensions)` or `(dimensions,)`.

        Returns:
            `(rows, columns)`.
        """
        first, second = (np.atleast_2d(np.asarray(values, np.float32)) for values in (first, second))
        first, second = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (first, second))
        return first @ second.T

    def index(self, folder: str | Path, output: str | Path, batch_size: int = BATCH_SIZE) -> IndexReport:
        """Embed the recordings of a folder into an index for `search`, or update it; see `build_index`."""
        from ..inference.indexing import IndexOptions, build_index

        return build_index(self._fitted(), folder, output, IndexOptions(batch_size))

    def search(self, index: Index | str | Path, text: str | None = None, like=None, top: int = 10) -> list[Hit]:
        """Find indexed recordings by text, by a recording, or by both; see `modeling_gemoclap.inference.search`."""
        from ..inference.search import search

        return search(self._fitted(), index, text, like, top)

    def fit(
        self, recordings, emotions=None, speakers=None, genders=None, output_dir: str | Path | None = None, **options
    ) -> GEmoClap:
        """Train a model by the recipe. A model that was loaded or fitted before is replaced, not trained further.

        Args:
            recordings: See the class; or the folder of a corpus, which has its own labels.
            emotions: One word for each recording, or the name of a column. A word that is no known emotion becomes a
                class of its own.
            speakers: One speaker for each recording, or the name of a column. Without them, they are read
                from the names of recordings of published corpora; for others the model records that they are unknown.
            genders: `female` or `male` for each recording, "" where unknown, or the name of a column.
            output_dir: Folder of the run, with logs and checkpoints; None: a temporary one.
            **options: Options of `train.py`, such as `num_train_epochs=5`. `num_dev_speakers=2, select="dev"` keeps
                the epoch that is best on two speakers that are held out.

        Returns:
            The model itself.

        Raises:
            ValueError: If labels are missing or unknown, or options are invalid.
            AudioError: If a recording cannot be used.
        """
        from ..command_line.parser import words_of
        from ..runs.train import main as train

        clips = _labelled(recordings, emotions, speakers, genders)
        with tempfile.TemporaryDirectory() as temporary:
            folder = str(output_dir or Path(temporary, "run"))
            options = {"output_dir": folder, "disable_tqdm": True, **options}
            options["data_dir"] = [str(_corpus_folder(clips, temporary))]
            if isinstance(clips, Labelled) and not all(map(canonical_emotion, clips.emotions)):
                options["emotions"] = sorted({canonical_emotion(word) or word for word in clips.emotions})
            words = [word for name, value in options.items() for word in words_of(name, _as_text(value))]
            train(["--config", self.recipe, *words])
            self.pipe, self._documents = load_pipeline(folder, self.device), _documents(folder)
        self._on_the_hub = None
        self._name = "a model that was fitted in Python" if output_dir is None else str(output_dir)
        return self

    def evaluate(
        self,
        recordings,
        emotions=None,
        speakers=None,
        genders=None,
        batch_size: int = BATCH_SIZE,
        allow_seen_speakers: bool = False,
    ) -> EvaluationReport:
        """Evaluate the model on labelled recordings of speakers that it was not trained on.

        Args:
            recordings: See the class; or the folder of a corpus, which has its own labels.
            emotions: One emotion word for each recording, or the name of a column.
            speakers: One speaker for each recording, or the name of a column.
            genders: `female` or `male` for each recording, "" where unknown, or the name of a column.
            batch_size: Number of recordings that are processed together.
            allow_seen_speakers: Whether speakers of the training data may be evaluated, which the report states.

        Returns:
            The report.

        Raises:
            SeenSpeakersError: If the model was trained on one of the speakers and that is not allowed.
            ValueError: If labels are missing, or a recording cannot be used.
        """
        from ..corpora.manifest import load_corpus
        from ..evaluation.checkpoint import evaluate_pipeline
        from ..evaluation.clips import Candidates, EvaluationOptions
        from ..evaluation.records import Source
        from .report import EvaluationReport

        pipe, labels = self._fitted(), self.classes_.tolist()
        clips = _labelled(recordings, emotions, speakers, genders)
        if isinstance(clips, Labelled) and clips.speakers is None:
            raise ValueError("give speakers: an evaluation states whether the model was trained on them")
        with tempfile.TemporaryDirectory() as temporary:
            corpus = load_corpus(_corpus_folder(clips, temporary), emotions=labels).of_emotions(labels)
            asked = corpus.identity | {"model": self._name, "labels": labels, "speakers": corpus.speakers}
            source = Source(corpus, self._name, "", asked)
            options = EvaluationOptions(batch_size, allow_seen_speakers=allow_seen_speakers)
            return EvaluationReport(*evaluate_pipeline(pipe, Candidates(labels), options, source, []))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save the model with its code and its card, so that it loads without this package.

        The facts of its training (`card.json`), the sample of its training clips (unless the weights have changed) and
        the licences in the folder that it was loaded from are saved too. Those of a model from the Hub are downloaded,
        or read from its cache if the Hub cannot be reached.

        Args:
            folder: The folder. Facts of another model in it are removed.

        Returns:
            The folder.
        """
        from ..publishing.card import write_card
        from ..publishing.weights import has_other_training_clips

        folder, pipe = Path(folder).expanduser(), self._fitted()
        if self._on_the_hub:
            self._documents = _documents(_snapshot(*self._on_the_hub))
        pipe.model.save_pretrained(folder)
        (getattr(pipe, "processor", None) or pipe.feature_extractor).save_pretrained(folder)
        for name in (CARD_FACTS, TRAINING_CLIPS):
            (folder / name).unlink(missing_ok=True)
        for name, content in self._documents.items():
            (folder / name).write_bytes(content)
        if has_other_training_clips(folder):
            (folder / TRAINING_CLIPS).unlink()
        write_card(folder)
        return folder

    def export(
        self, path: str | Path, labels: Sequence[str] | None = None, templates=None, quantize: str | None = None
    ) -> dict:
        """Write the model to an ONNX file, which runs without torch; see `modeling_gemoclap.inference.export`.

        Args:
            path: The file, whose name ends in `.onnx`. A JSON file with the labels is written beside it.
            labels: Words to choose from; None: the emotions of the model.
            templates: Prompt templates with `{}`; None: those of the model.
            quantize: `"int8"` for linear layers in 8 bits; None: float32.

        Returns:
            The content of the JSON file.
        """
        from ..inference.export import ExportOptions, export_onnx, exported_name
        from ..inference.information import licence_of

        checkpoint = (self._name, None) if Path(shipped_checkpoint(self._name)).is_dir() else self._on_the_hub
        licence = licence_of(*checkpoint) if checkpoint else None
        options = ExportOptions(labels, templates, quantize, name=exported_name(self._name), licence=licence)
        return export_onnx(self._fitted(), path, options)

    def push_to_hub(self, repository: str, **options) -> CommitInfo:
        """Push the model with its code and its card to the Hugging Face Hub, in one commit.

        Args:
            repository: Name of the repository, `NAMESPACE/NAME`. It is created if it does not exist.
            **options: `private`, `revision` (a branch), `tag` and `token`; see `push_checkpoint`.

        Returns:
            The commit. `oid` is its hash, which `from_pretrained` takes as `revision`.

        Raises:
            PushError: If the Hub refuses or cannot be reached.
        """
        from ..publishing.push import push_checkpoint

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, repository.rpartition("/")[2])
            return push_checkpoint(self.save_pretrained(folder), repository, **options)


def _labelled(recordings, emotions, speakers, genders) -> Labelled | Path:
    """The recordings with their labels, or the folder of a corpus, which has its own."""
    if not (isinstance(recordings, (str, Path)) and Path(recordings).expanduser().is_dir()):
        return labelled(recordings, emotions, speakers, genders)
    given = {"emotions": emotions, "speakers": speakers, "genders": genders}
    if extra := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"{recordings} is a corpus with labels of its own: leave out {', '.join(extra)}")
    return Path(recordings).expanduser()


def _documents(folder: str) -> dict[str, bytes]:
    """The files `DOCUMENTS` in the folder of a checkpoint."""
    paths = (path for pattern in DOCUMENTS for path in Path(folder).glob(pattern))
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _snapshot(repository: str, commit: str | None) -> str:
    """The folder of a commit in the cache of the Hub, with its `DOCUMENTS` if the Hub can be reached."""
    from huggingface_hub import snapshot_download

    options = {"revision": commit, "allow_patterns": list(DOCUMENTS)}
    try:
        return snapshot_download(repository, **options)
    except Exception as error:  # the client of the Hub raises errors of several libraries
        logger.warning(f"{repository}: its card.json and licences may be missing, since the Hub gave none ({error})")
        return snapshot_download(repository, local_files_only=True, **options)


def _corpus_folder(clips: Labelled | Path, temporary: str) -> Path:
    if isinstance(clips, Path):
        return clips
    from .corpus import write_corpus

    return write_corpus(Path(temporary, "recordings"), clips)


def _as_text(value):
    """The value of an option in the form that a YAML file gives to `words_of`."""
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    return value if value is None or isinstance(value, dict) else str(value)
