"""Evaluate a checkpoint with other words in its prompts: templates held out of training, and other words for emotions.

Only the texts change; the clips are embedded once. The parts of `evidence.py` that make checkpoints run it.
"""

from __future__ import annotations

from pathlib import Path

import harness  # noqa: F401  (puts the project on the import path)
import numpy as np

from modeling_gemoclap.compression.word_pieces import listed_words
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation.clips import evaluate_clips
from modeling_gemoclap.evaluation.metrics import war_uar
from modeling_gemoclap.inference.loading import load_pipeline


class PromptEvaluation:
    """Evaluates a checkpoint on embedded clips with class texts of any words.

    Args:
        checkpoint: Folder of the checkpoint.
        corpus: Folder of the corpus.
        speakers: Speakers to evaluate on.
    """

    def __init__(self, checkpoint: Path, corpus: Path, speakers: list[str]):
        self.pipe = load_pipeline(str(checkpoint))
        self.config = self.pipe.model.config
        evaluation = evaluate_clips(self.pipe, load_corpus(corpus).of_speakers(speakers))
        self.emotions, self.embeddings = evaluation.emotions, np.stack(evaluation.embeddings)

    @property
    def templates(self) -> list[str]:
        """The checkpoint's templates, with or without gender."""
        return self.config.joint_templates if self.config.uses_joint_texts else self.config.emotion_templates

    def class_texts(self, prompts: list[list[str]]) -> np.ndarray:
        """Embeddings of class texts, `(classes, size)`, from the prompts of each class."""
        return self.pipe.model.get_class_embeddings(prompts, self.pipe.processor.tokenizer).float().cpu().numpy()

    def text_of(self, word: str) -> np.ndarray:
        """The class text of a word in the checkpoint's templates, `(size,)`; no word is replaced by its class's."""
        filled = [template.replace("{emotion}", word).replace("{}", word) for template in self.templates]
        genders = self.config.genders if self.config.uses_joint_texts else [""]
        return self.class_texts([[text.replace("{gender}", gender) for gender in genders for text in filled]])[0]

    def scores(self, texts: np.ndarray) -> dict:
        """WAR, UAR and recall with class texts `(classes, size)`."""
        nearest = (self.embeddings @ texts.T).argmax(1)
        return war_uar([self.config.emotions[place] for place in nearest], self.emotions)


def measure_words(checkpoint: Path, corpus: Path, speakers: list[str], part: dict) -> dict:
    """Evaluate a checkpoint with held-out templates, with each word for its emotions and with an unknown word.

    The words are those of training and those of `emotion_words.txt` that the text encoder knows.

    Args:
        checkpoint: Folder of the checkpoint.
        corpus: Folder of the corpus.
        speakers: Speakers to evaluate on.
        part: The plan's entry: `templates` that were not used in training, and `unknown`, a word for no emotion.

    Returns:
        A dict with `own`, `templates` and `words`. A word has its cosine to the class's own text, the class whose own
        text is nearest, and recall and UAR where it replaces the class's word.

    Raises:
        ValueError: If a template was used in training.
    """
    evaluation = PromptEvaluation(checkpoint, corpus, speakers)
    config = evaluation.config
    own = evaluation.class_texts(config.class_prompts())
    word, prompts = config.words_of(config.emotions[0])[0], set(config.training_prompts())
    if used := [template for template in part["templates"] if template.replace("{}", word) in prompts]:
        raise ValueError(f"evidence.yaml: templates that were used in training cannot be held out: {used}")
    templates = []
    for template in part["templates"]:
        unknown = config.unknown_words([template.replace("{}", "")])
        scores = evaluation.scores(evaluation.class_texts(config.class_prompts(None, template)))
        templates.append({"template": template, "unknown": unknown, **scores})
    return {
        "n": len(evaluation.emotions),
        "speakers": speakers,
        "own": evaluation.scores(own) | {"templates": len(evaluation.templates)},
        "templates": templates,
        "words": [
            _word(evaluation, own, place, word)
            for place, emotion in enumerate(config.emotions)
            if emotion in evaluation.emotions  # without clips there is no recall
            for word in [*_words_for(config, emotion), part["unknown"]]
        ],
    }


def _words_for(config, emotion: str) -> list[str]:
    """The words for an emotion that were used in training, and the listed ones that the text encoder knows."""
    listed = [word for word in listed_words().get(emotion, []) if not config.unknown_words([word])]
    return list(dict.fromkeys([*config.words_of(emotion), *listed]))


def _word(evaluation: PromptEvaluation, own: np.ndarray, place: int, word: str) -> dict:
    """The figures of a word in place of that of a class, given the own texts of all classes."""
    config, texts = evaluation.config, own.copy()
    texts[place] = evaluation.text_of(word)
    scores = evaluation.scores(texts)
    return {
        "word": word,
        "emotion": config.emotions[place],
        "known": not config.unknown_words([word]),
        "trained": word in config.words_of(config.emotions[place]),
        "cosine": float(texts[place] @ own[place]),
        "nearest": config.emotions[int((own @ texts[place]).argmax())],
        "recall": scores["recall"][config.emotions[place]],
        "uar": scores["uar"],
    }
