"""An estimator of scikit-learn, for cross-validation and search of settings."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ..prompts_gemoclap import canonical_emotion
from .model import GEmoClap


class GEmoClapClassifier(ClassifierMixin, BaseEstimator):
    """Trains a model on recordings `X` with emotions `y`, as scikit-learn expects.

    `cross_val_score` gives `fit` no speakers, so a model records only those that `X` or the names of published
    recordings contain; `groups` and `GroupKFold` keep the speakers of training and test apart.

    Args:
        recipe: A configuration of the package or a YAML file.
        options: Options of `train.py` by name; None: those of the recipe.
        device: Device of the model; None selects a GPU if there is one.

    Attributes:
        model_: The fitted `GEmoClap`.
        classes_: The emotions, `(classes,)`, in the words of `y`. Emotions that the recipe adds have its words.

    Example:
        >>> cross_val_score(GEmoClapClassifier("compact"), files, emotions, groups=speakers, cv=GroupKFold(5))
    """

    def __init__(self, recipe: str = "compact", options: dict | None = None, device: str | None = None):
        self.recipe, self.options, self.device = recipe, options, device

    def fit(self, X, y, speakers=None, genders=None) -> GEmoClapClassifier:  # noqa: N803
        """Train.

        Args:
            X: Recordings, `(recordings,)`, or a table with a column of them; see `GEmoClap.fit`.
            y: Their emotions, `(recordings,)`.
            speakers: Their speakers; see `GEmoClap.fit`.
            genders: Their genders; see `GEmoClap.fit`.

        Raises:
            ValueError: If two words of `y` name the same emotion, such as fear and anxiety.
        """
        words: dict[str, str] = {}
        for word in map(str, y):
            if (other := words.setdefault(canonical_emotion(word) or word, word)) != word:
                raise ValueError(f"{other!r} and {word!r} are the same emotion: use one word for both")
        model = GEmoClap(self.recipe, self.device)
        self.model_ = model.fit(X, list(y), speakers, genders, **(self.options or {}))
        self.classes_ = np.array([words.get(emotion, emotion) for emotion in self.model_.classes_])
        return self

    def predict_proba(self, X) -> np.ndarray:  # noqa: N803
        """The scores of the emotions, `(recordings, classes)`."""
        check_is_fitted(self)
        return self.model_.predict_proba(X)

    def predict(self, X) -> np.ndarray:  # noqa: N803
        """The emotion of each recording, `(recordings,)`."""
        return self.classes_[self.predict_proba(X).argmax(1)]
