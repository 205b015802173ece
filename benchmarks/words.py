"""Whether a checkpoint knows more words than the ones it is asked with: templates that were kept out, and synonyms.

Only the texts change; the clips are embedded once. Run by `python benchmarks/evidence.py words`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation.answers import evaluate_clips
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

    def texts(words: list[str]) -> np.ndarray:
        """Class texts with other words in the checkpoint's own templates; `class_prompts` would put its own back."""
        templates = config.joint_templates if config.uses_joint_texts else config.emotion_templates
        filled = [[one.replace("{emotion}", word).replace("{}", word) for one in templates] for word in words]
        genders = config.genders if config.uses_joint_texts else [""]
        prompts = [[one.replace("{gender}", gender) for gender in genders for one in group] for group in filled]
        return embedded(prompts)

    def embedded(prompts: list[list[str]]) -> np.ndarray:
        return pipe.model.get_class_embeddings(prompts, tokenizer).float().cpu().numpy()

    def judge(classes: np.ndarray) -> dict:
        answers = [config.emotions[place] for place in (embeddings @ classes.T).argmax(1)]
        return war_uar(answers, found.references)

    own_words = [config.words_of(emotion)[0] for emotion in config.emotions]
    own = embedded(config.class_prompts())
    trained = set(config.training_prompts())
    if seen := [one for one in asked["templates"] if one.replace("{}", own_words[0]) in trained]:
        raise ValueError(f"templates that training saw cannot be held out: {seen}")
    templates = []
    for template in asked["templates"]:
        unknown = config.unknown_words([template.replace("{}", "")])
        classes = embedded(config.class_prompts(None, template))
        templates.append({"template": template, "unknown": unknown, **judge(classes)})
    words = []
    for place, emotion in enumerate(config.emotions):
        for word in [*config.words_of(emotion), asked["unknown"]]:
            classes = texts([*own_words[:place], word, *own_words[place + 1 :]])
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
    count = len(config.joint_templates if config.uses_joint_texts else config.emotion_templates)
    return {
        "n": len(found.rows),
        "speakers": asked["speakers"],
        "own": judge(own) | {"templates": count},
        "templates": templates,
        "words": words,
    }
