"""Emotion and gender words, the validation of labels and templates, and the prompts of a configuration."""

from __future__ import annotations

import re

# Control characters, line breaks, and marks that reverse the order of text on a screen. They are in no word, and a
# label with them could change what a terminal or a subtitle shows. Joiners, as in Persian, and non-breaking spaces are
# allowed. `CONTROL` also matches halves of surrogate pairs, which stand for bytes of a name that are no text.
CONTROL_CHARACTERS = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(f"[{CONTROL_CHARACTERS}\ud800-\udfff]")

# Canonical emotion -> (its word in prompts, its aliases in corpora and common usage).
EMOTION_WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "angry": ("angry", ("anger", "ang", "mad")),
    "boredom": ("bored", ("bored", "bor")),
    "calm": ("calm", ("calmness",)),
    "contempt": ("contemptuous", ("contemptuous",)),
    "disgust": ("disgusted", ("disgusted", "dis")),
    "excited": ("excited", ("excitement", "exc")),
    "fear": ("fearful", ("fearful", "fea", "afraid", "anxiety", "anxious", "scared")),
    "frustrated": ("frustrated", ("frustration", "fru")),
    "happy": ("happy", ("happiness", "hap", "joy", "joyful")),
    "neutral": ("neutral", ("neu",)),
    "sad": ("sad", ("sadness",)),
    "surprise": ("surprised", ("surprised", "sur")),
}
GENDER_WORDS: dict[str, tuple[str, ...]] = {"female": ("f", "woman", "w"), "male": ("m", "man")}


def canonical_emotion(word: str) -> str | None:
    """The canonical name of an emotion word (`"happiness"` -> `"happy"`), or None if it is unknown."""
    word = word.strip().lower()
    if word in EMOTION_WORDS:
        return word
    return next((name for name, (_, aliases) in EMOTION_WORDS.items() if word in aliases), None)


def canonical_gender(word: str) -> str | None:
    """The canonical name of a gender word (`"F"` -> `"female"`), or None if it is unknown."""
    word = word.strip().lower()
    if word in GENDER_WORDS:
        return word
    return next((name for name, aliases in GENDER_WORDS.items() if word in aliases), None)


def prompt_word(emotion: str) -> str:
    """The word for an emotion in a prompt (`"fear"` -> `"fearful"`); an unknown emotion is returned unchanged."""
    name = canonical_emotion(emotion)
    return EMOTION_WORDS[name][0] if name else emotion


def words_in(prompts: list[str]) -> list[str]:
    """The distinct words of prompts in lower case, in order of appearance."""
    return list(dict.fromkeys(word for prompt in prompts for word in re.findall(r"[^\W\d_]+", prompt.lower())))


def parse_words(name: str, words) -> list[str]:
    """Convert a collection of words, or a comma-separated string, to a list.

    Args:
        name: Name of the argument in error messages.
        words: A list, tuple, set, array, series or generator of words, or one string. A set is sorted.

    Returns:
        The words with normalised whitespace.

    Raises:
        ValueError: If `words` is not a collection of words, or if a word is empty, or contains braces or `CONTROL`
            characters.
    """
    if hasattr(words, "tolist"):  # arrays, tensors, series
        words = words.tolist()
    if isinstance(words, str):
        words = [word for word in words.split(",") if word.strip()]
    if isinstance(words, (bytes, dict)) or not hasattr(words, "__iter__"):
        raise ValueError(f"{name} must be a list of words or one comma-separated string, got {words!r:.200}")
    words = sorted(words, key=str) if isinstance(words, (set, frozenset)) else list(words)
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"{name}: {word!r:.200} is not a word; give a list of words")
        if set(word) & set("{}"):
            raise ValueError(f"{name}: {word!r:.200} contains braces, which belong in a template: give only the word")
    return [_without_control(name, " ".join(word.split())) for word in words]


def _without_control(name: str, text: str) -> str:
    if CONTROL.search(text):
        raise ValueError(f"{name}: {text[:80]!r} contains a control character: remove it")
    return text


def check_words(name: str, words) -> list[str]:
    """Convert a collection of distinct words to a list; case and whitespace do not distinguish words.

    Raises:
        ValueError: As for `parse_words`, or if there are no words or a word is repeated.
    """
    words = parse_words(name, words)
    if not words:
        raise ValueError(f"{name} must be a non-empty list of words")
    seen: dict[str, str] = {}
    for word in words:
        if word.casefold() in seen:
            raise ValueError(f"{name} names a word twice: {seen[word.casefold()]!r:.200} and {word!r:.200}")
        seen[word.casefold()] = word
    return words


def require_two_words(name: str, words) -> list[str]:
    """Return the words if there is a choice between them.

    Raises:
        ValueError: If there is exactly one word.
    """
    if len(words) == 1:
        raise ValueError(f"{name} names only {words[0]!r:.200}, which every clip would then be: give two or more")
    return words


def refuse_shared_prompts(name: str, labels: list[str]) -> list[str]:
    """Return the labels if their prompts differ; labels with the same prompt would have equal scores.

    Raises:
        ValueError: If labels share their word in prompts. The message names the labels and the word.
    """
    by_word: dict[str, list[str]] = {}
    for label in labels:
        by_word.setdefault(prompt_word(label).casefold(), []).append(label)
    for word, sharing in by_word.items():
        if len(sharing) > 1:
            listed = ", ".join(map(repr, sharing))
            raise ValueError(
                f"{name}: {listed:.300} are all {word!r:.200} in a prompt and would score alike: keep one of them"
            )
    return labels


def check_synonyms(synonyms: dict, emotions: list[str]) -> dict[str, list[str]]:
    """Select the synonyms of the given emotions.

    Raises:
        ValueError: If a word stands for two of the emotions, or if the synonyms are not lists of words.
    """
    if not isinstance(synonyms, dict) or any(not isinstance(words, (list, tuple)) for words in synonyms.values()):
        raise ValueError(f"emotion_synonyms must be lists of words by emotion, got {synonyms!r:.200}")
    name = "emotion_synonyms"
    selected = {emotion: parse_words(name, synonyms[emotion]) for emotion in emotions if synonyms.get(emotion)}
    words = [(word, emotion) for emotion in emotions for word in {prompt_word(emotion), *selected.get(emotion, [])}]
    for word, emotion in words:
        if others := sorted({owner for other, owner in words if other == word} - {emotion}):
            raise ValueError(f"emotion_synonyms: {word!r:.200} stands for {emotion} and for {others[0]}")
        if canonical_emotion(word) in set(emotions) - {emotion}:
            raise ValueError(f"emotion_synonyms: {word!r:.200} of {emotion} is a name of {canonical_emotion(word)}")
    return selected


def check_templates(name: str, templates, fields: tuple[str, ...]) -> list[str]:
    """Convert one template or several distinct templates to a list.

    Raises:
        ValueError: If there are no templates, if a template lacks a field, is repeated, or contains `CONTROL`
            characters.
    """
    if not hasattr(templates, "__iter__"):
        raise ValueError(f"{name}={templates!r:.200} is neither a template nor a list of templates")
    templates = [templates] if isinstance(templates, str) else list(templates)
    for template in templates:
        if not isinstance(template, str):
            raise ValueError(f"{name}: {template!r:.200} is not a template; give text with {' and '.join(fields)}")
        missing = [field for field in fields if field not in template]
        if missing:
            raise ValueError(f"{name}: the template {template!r:.200} lacks {' and '.join(missing)}")
        _without_control(name, " ".join(template.split()))
    plain = [" ".join(template.casefold().split()) for template in templates]
    if repeated := [template for index, template in enumerate(templates) if plain[index] in plain[:index]]:
        raise ValueError(
            f"{name} has the template {repeated[0]!r:.200} twice, up to case and whitespace: give it once"
        )
    if not templates:
        raise ValueError(f"{name} needs at least one template")
    return templates


def resolve_emotions(
    emotions=None, id2label: dict | None = None, label2id: dict | None = None, num_labels: int | None = None
) -> list[str] | None:
    """Determine the emotions from `emotions` or from the fields that transformers has for the labels of a head.

    Args:
        emotions: The emotion words in order.
        id2label: Index to word; an index may be text, as in JSON.
        label2id: Word to index.
        num_labels: Number of emotions.

    Returns:
        The words in order; None if no argument or only `num_labels` is given; an empty list if all given fields are
        empty.

    Raises:
        ValueError: If the arguments disagree, or if the indices are not 0, 1, 2 and so on.
    """
    fields = [field for field in (emotions, id2label, label2id) if field is not None]
    if fields and not num_labels and all(isinstance(field, (list, tuple, dict)) and not field for field in fields):
        return []
    for name, indices in (("id2label", id2label), ("label2id", label2id)):
        is_dict = isinstance(indices, dict) and not any(isinstance(each, (dict, list)) for each in indices.values())
        if indices is not None and not is_dict:
            raise ValueError(
                f"{name}={indices!r:.200} must be a dict of all labels; give a list of labels as emotions"
            )
    given = {}
    if emotions is not None:
        given["emotions"] = check_words("emotions", emotions)
    if id2label is not None:
        given["id2label"] = _in_order("id2label", {word: index for index, word in dict(id2label).items()}, id2label)
    if label2id is not None:
        given["label2id"] = _in_order("label2id", dict(label2id), label2id)
    (first, words), *others = given.items() or [("", None)]
    for other, other_words in others:
        if other_words != words:
            raise ValueError(
                f"{first} and {other} disagree ({str(words):.200} and {str(other_words):.200}): give only one of "
                f"them, or make them agree"
            )
    if words is not None and num_labels not in (None, len(words)):
        raise ValueError(f"num_labels={num_labels}, but {first} names {len(words)}: {', '.join(words):.300}")
    return words if words is None else require_two_words("emotions", words)


def _in_order(name: str, indices: dict, given: dict) -> list[str]:
    """The words of `indices`, word to index, in the order of their indices."""
    try:
        words = {int(index): word for word, index in indices.items()}
    except (TypeError, ValueError):
        words = {}
    if not words or sorted(words) != list(range(len(given))):
        raise ValueError(f"{name}={given!r:.200} must have one word for each index 0, 1, 2, ...")
    return check_words(name, [words[index] for index in range(len(words))])


def require_emotions(emotions: list[str]) -> None:
    """Check that a model that predicts emotions has emotions.

    Raises:
        ValueError: If there are none, as for an encoder that was trained without labels.
    """
    if not emotions:
        raise ValueError(
            "the configuration names no emotions, like that of an encoder that was trained without labels: give "
            "emotions=[...]"
        )


class PromptsMixin:
    """The prompts of a configuration, from its words, its templates and its objective."""

    @property
    def uses_joint_texts(self) -> bool:
        """Whether the text of a clip names emotion and gender together."""
        return self.objective == "sl" and self.sl_texts == "joint"

    @property
    def prompt_words(self) -> list[str]:
        """The word for each emotion in a prompt, as candidate labels for the pipeline of transformers."""
        return [prompt_word(emotion) for emotion in self.emotions]

    def words_of(self, emotion: str, synonyms: bool = True) -> list[str]:
        """The word for an emotion in a prompt and, optionally, its synonyms."""
        return [prompt_word(emotion), *(self.emotion_synonyms.get(emotion, []) if synonyms else [])]

    def emotion_prompts(self, emotion: str, synonyms: bool = False) -> list[str]:
        """The emotion-only prompts of an emotion, one for each word and template."""
        words = self.words_of(emotion, synonyms)
        return [template.replace("{}", word) for word in words for template in self.emotion_templates]

    def gender_prompts(self, gender: str) -> list[str]:
        """The gender prompts of a gender, one for each template."""
        return [template.replace("{}", gender) for template in self.gender_templates]

    def joint_prompts(self, emotion: str, gender: str, synonyms: bool = False) -> list[str]:
        """The prompts that name both attributes, one for each word and template."""
        return [
            template.replace("{emotion}", word).replace("{gender}", gender)
            for word in self.words_of(emotion, synonyms)
            for template in self.joint_templates
        ]

    def training_prompts(self) -> list[str]:
        """All prompts that training samples from."""
        prompts = [prompt for emotion in self.emotions for prompt in self.emotion_prompts(emotion, synonyms=True)]
        for gender in self.genders:
            prompts += self.gender_prompts(gender)
            prompts += [prompt for e in self.emotions for prompt in self.joint_prompts(e, gender, synonyms=True)]
        return prompts

    def unknown_words(self, prompts: list[str]) -> list[str]:
        """Words of the prompts on which the text tower was not trained; empty for a pretrained text tower."""
        if self.known_words is None:
            return []
        return [word for word in words_in(prompts) if word not in self.known_words]

    def class_prompts(self, labels=None, hypothesis_template=None) -> list[list[str]]:
        """The prompts whose mean embedding represents each label at inference.

        These are the joint prompts with every gender if the checkpoint was trained on joint texts, else the emotion
        prompts.

        Args:
            labels: Emotion words; None uses the emotions of the configuration.
            hypothesis_template: One template or several, each with `{}`; None uses those of the configuration.

        Returns:
            One list of prompts for each label.

        Raises:
            ValueError: If a label is empty, is repeated or shares its prompts with another, or a template lacks `{}`.
        """
        labels = refuse_shared_prompts(
            "candidate_labels", check_words("candidate_labels", self.emotions if labels is None else labels)
        )
        if hypothesis_template is not None:
            templates = check_templates("hypothesis_template", hypothesis_template, ("{}",))
            return [[template.replace("{}", prompt_word(label)) for template in templates] for label in labels]
        if self.uses_joint_texts:
            return [[p for gender in self.genders for p in self.joint_prompts(label, gender)] for label in labels]
        return [self.emotion_prompts(label) for label in labels]

    def gender_class_prompts(self) -> list[list[str]]:
        """The prompts whose mean embedding represents each gender.

        Raises:
            ValueError: If the texts of the checkpoint's objective do not name gender.
        """
        if self.objective == "ml":
            return [self.gender_prompts(gender) for gender in self.genders]
        if self.uses_joint_texts:
            return [[p for emotion in self.emotions for p in self.joint_prompts(emotion, g)] for g in self.genders]
        raise ValueError(
            f"this checkpoint has no texts for gender: its objective is {self.objective!r} with {self.sl_texts=}; "
            f"'ml', or 'sl' with joint texts, has them"
        )
