"""Whether a checkpoint knows more words than the ones it is asked with: templates that were kept out, and synonyms.

Only the texts change; the clips are embedded once. Run by `python benchmarks/evidence.py words`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation.clips import evaluate_clips
from modeling_gemoclap.evaluation.loading import load_pipeline
from modeling_gemoclap.evaluation.metrics import war_uar


def measured(checkpoint: Path, corpus: Path, asked: dict) -> dict:
    """Judge a checkpoint by other words.

    Args:
        checkpoint: Its folder.
        corpus: Folder of the corpus.
        asked: `speakers` to judge, `templates` that training never saw, and `unknown`, a word that nobody knows.

    Returns:
        A dict with `own`, `templates` and `words`; of a word its cosine to the class's own text, the class whose own
        text is nearest to it, and recall and UAR where it takes the class's place.
    """
    pipe = load_pipeline(str(checkpoint))
    config, tokenizer = pipe.model.config, pipe.processor.tokenizer
    clips = load_corpus(corpus).of_speakers(asked["speakers"])
    found = evaluate_clips(pipe, clips)
    embeddings = np.stack(found.embeddings)

    own_templates = config.joint_templates if config.uses_joint_texts else config.emotion_templates

    def text_of(word: str) -> np.ndarray:
        """A class text with another word in the checkpoint's own templates; `class_prompts` would put its own back."""
        genders = config.genders if config.uses_joint_texts else [""]
        filled = [one.replace("{emotion}", word).replace("{}", word) for one in own_templates]
        return embedded([[one.replace("{gender}", gender) for gender in genders for one in filled]])[0]

    def embedded(prompts: list[list[str]]) -> np.ndarray:
        return pipe.model.get_class_embeddings(prompts, tokenizer).float().cpu().numpy()

    def judge(classes: np.ndarray) -> dict:
        answers = [config.emotions[place] for place in (embeddings @ classes.T).argmax(1)]
        return war_uar(answers, found.emotions)

    own = embedded(config.class_prompts())
    first, trained = config.words_of(config.emotions[0])[0], set(config.training_prompts())
    if seen := [one for one in asked["templates"] if one.replace("{}", first) in trained]:
        raise ValueError(f"templates that training saw cannot be held out: {seen}")
    templates = []
    for template in asked["templates"]:
        unknown = config.unknown_words([template.replace("{}", "")])
        classes = embedded(config.class_prompts(None, template))
        templates.append({"template": template, "unknown": unknown, **judge(classes)})
    words = []
    for place, emotion in enumerate(config.emotions):
        for word in [*config.words_of(emotion), asked["unknown"]]:
            classes = own.copy()
            classes[place] = text_of(word)
            scores = judge(classes)
            words.append(
                {
                    "word": word,
                    "emotion": emotion,
                    "known": not config.unknown_words([word]),
                    "cosine": float(classes[place] @ own[place]),
                    "nearest": config.emotions[int((own @ classes[place]).argmax())],
                    "recall": scores["recall"][emotion],
                    "uar": scores["uar"],
                }
            )
    return {
        "n": len(found.rows),
        "speakers": asked["speakers"],
        "own": judge(own) | {"templates": len(own_templates)},
        "templates": templates,
        "words": words,
    }
