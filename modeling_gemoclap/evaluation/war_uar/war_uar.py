"""WAR and UAR, the two accuracies of speech emotion recognition, as a Hugging Face `evaluate` metric."""

import datasets
import sklearn.metrics

import evaluate

_DESCRIPTION = """
Weighted average recall (WAR) is accuracy. Unweighted average recall (UAR) is the mean recall of the classes that occur
among the references, with equal weight for every class.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Predicted classes, all strings or all integers.
    references: True classes, of the same type.

Returns:
    war: Share of correct predictions.
    uar: Mean recall of the classes that occur among the references.
    recall: Recall of each of these classes, a dict by class.

Examples:
    >>> metric = evaluate.load("modeling_gemoclap/evaluation/war_uar")
    >>> metric.compute(predictions=["sad", "sad", "sad", "sad"], references=["sad", "sad", "sad", "happy"])
    {'war': 0.75, 'uar': 0.5, 'recall': {'happy': 0.0, 'sad': 1.0}}
"""

_CITATION = """
@inproceedings{schuller2009interspeech,
  title     = {The INTERSPEECH 2009 Emotion Challenge},
  author    = {Schuller, Bj{\\"o}rn and Steidl, Stefan and Batliner, Anton},
  booktitle = {Interspeech},
  year      = {2009}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class WarUar(evaluate.Metric):
    """WAR, UAR and recall by class."""

    def _info(self):
        kinds = ("string", "int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": datasets.Value(kind), "references": datasets.Value(kind)})
                for kind in kinds
            ],
        )

    def _compute(self, predictions, references):
        classes = sorted(set(references))
        recalls = sklearn.metrics.recall_score(
            references, predictions, labels=classes, average=None, zero_division=0.0
        )
        return {
            "war": float(sklearn.metrics.accuracy_score(references, predictions)),
            "uar": float(recalls.mean()),
            "recall": {name: float(recall) for name, recall in zip(classes, recalls, strict=True)},
        }
