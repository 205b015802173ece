"""The words that GEmo-CLAP has for emotions and genders, and what labels and templates must be."""

from __future__ import annotations

import re

# Canonical emotion -> (the word it takes in a prompt, other spellings that corpora and people use).
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
    """The canonical name of an emotion word (`"happiness"` -> `"happy"`), or None where it is not known."""
    word = word.strip().lower()
    if word in EMOTION_WORDS:
        return word
    return next((name for name, (_, aliases) in EMOTION_WORDS.items() if word in aliases), None)


def canonical_gender(word: str) -> str | None:
    """The canonical name of a gender word (`"F"` -> `"female"`), or None where it is not known."""
    word = word.strip().lower()
    if word in GENDER_WORDS:
        return word
    return next((name for name, aliases in GENDER_WORDS.items() if word in aliases), None)


def prompt_word(emotion: str) -> str:
    """The word an emotion takes in a prompt (`"fear"` -> `"fearful"`); an unknown one stands for itself."""
    name = canonical_emotion(emotion)
    return EMOTION_WORDS[name][0] if name else emotion


def words_in(prompts: list[str]) -> list[str]:
    """The words of prompts in small letters, each once, in their order."""
    return list(dict.fromkeys(word for prompt in prompts for word in re.findall(r"[^\W\d_]+", prompt.lower())))


def as_words(name: str, words) -> list[str]:
    """Words from a list, tuple, set, array, series or generator of them, or from one string with commas.

    Args:
        name: What the words are, for the error.
        words: The words. A set has no order of its own and is sorted.

    Returns:
        The words without blanks at their ends.

    Raises:
        ValueError: If `words` is no collection of words, or one of them is empty or has braces.
    """
    if hasattr(words, "tolist"):  # arrays, tensors, series
        words = words.tolist()
    if isinstance(words, str):
        words = [word for word in words.split(",") if word.strip()]
    if isinstance(words, (bytes, dict)) or not hasattr(words, "__iter__"):
        raise ValueError(f"{name} must be a list of words, or one string with commas between them, got {words!r}")
    words = sorted(words, key=str) if isinstance(words, (set, frozenset)) else list(words)
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"{name}: {word!r} is not a word; give a list of words")
        if set(word) & set("{}"):
            raise ValueError(f"{name}: {word!r} has braces, which belong into a template: give the word alone")
    return [" ".join(word.split()) for word in words]


def check_words(name: str, words) -> list[str]:
    """Make sure that these are words, each once; blanks and capitals do not make two words of one.

    Raises:
        ValueError: As `as_words`, or if there are none, or one stands twice.
    """
    words = as_words(name, words)
    if not words:
        raise ValueError(f"{name} must be a non-empty list of words")
    seen: dict[str, str] = {}
    for word in words:
        if word.casefold() in seen:
            raise ValueError(f"{name} names a word twice: {seen[word.casefold()]!r} and {word!r}")
        seen[word.casefold()] = word
    return words


def refuse_one_word(name: str, words) -> list[str]:
    """Make sure that there is something to choose between.

    Raises:
        ValueError: If there is one word alone.
    """
    if len(words) == 1:
        raise ValueError(f"{name} names {words[0]!r} alone, which every clip would then be: give two or more")
    return words


def refuse_shared_prompts(name: str, labels: list[str]) -> list[str]:
    """Make sure that every label has a prompt of its own: labels of one prompt have equal scores.

    Raises:
        ValueError: If labels share their word in prompts, with the labels and the word.
    """
    by_word: dict[str, list[str]] = {}
    for label in labels:
        by_word.setdefault(prompt_word(label).casefold(), []).append(label)
    for word, sharing in by_word.items():
        if len(sharing) > 1:
            listed = ", ".join(map(repr, sharing))
            raise ValueError(f"{name}: {listed} are all {word!r} in a prompt and would score alike: keep one of them")
    return labels


def check_synonyms(synonyms: dict, emotions: list[str]) -> dict[str, list[str]]:
    """The synonyms of these emotions; those of other emotions are left aside.

    Raises:
        ValueError: If a word stands for two of the emotions, or the synonyms are no lists of words.
    """
    if not isinstance(synonyms, dict) or any(not isinstance(words, (list, tuple)) for words in synonyms.values()):
        raise ValueError(f"emotion_synonyms must be lists of words by emotion, got {synonyms!r}")
    kept = {emotion: as_words("emotion_synonyms", synonyms[emotion]) for emotion in emotions if synonyms.get(emotion)}
    words = [(word, emotion) for emotion in emotions for word in {prompt_word(emotion), *kept.get(emotion, [])}]
    for word, emotion in words:
        if others := sorted({own for other, own in words if other == word} - {emotion}):
            raise ValueError(f"emotion_synonyms: {word!r} stands for {emotion} and for {others[0]}")
        if canonical_emotion(word) in set(emotions) - {emotion}:
            raise ValueError(f"emotion_synonyms: {word!r} of {emotion} is a name of {canonical_emotion(word)}")
    return kept


def check_templates(name: str, templates, fields: tuple[str, ...]) -> list[str]:
    """Make sure that each template has its fields, and that no two are the same.

    Raises:
        ValueError: If there is none, a template lacks a field, or stands twice.
    """
    if not hasattr(templates, "__iter__"):
        raise ValueError(f"{name}={templates!r} is not a template, nor a list of them")
    templates = [templates] if isinstance(templates, str) else list(templates)
    for template in templates:
        if not isinstance(template, str):
            raise ValueError(f"{name}: {template!r} is not a template; give text with {' and '.join(fields)}")
        missing = [field for field in fields if field not in template]
        if missing:
            raise ValueError(f"{name}: the template {template!r} lacks {' and '.join(missing)}")
    plain = [" ".join(template.casefold().split()) for template in templates]
    if twice := [template for place, template in enumerate(templates) if plain[place] in plain[:place]]:
        raise ValueError(f"{name} has the template {twice[0]!r} twice, but for capitals and blanks: give it once")
    if not templates:
        raise ValueError(f"{name} needs at least one template")
    return templates


def emotions_of(
    emotions=None, id2label: dict | None = None, label2id: dict | None = None, num_labels: int | None = None
) -> list[str] | None:
    """The emotions, however they are given: by themselves, or as transformers names the classes of a head.

    Args:
        emotions: The words in their order.
        id2label: Place to word; places may be text, as JSON has them.
        label2id: Word to place.
        num_labels: How many there are.

    Returns:
        The words in their order; None where nothing, or their number alone, is given; an empty list where it is
        given that there are none.

    Raises:
        ValueError: If what is given disagrees, or places are not 0, 1, 2 and so on.
    """
    named = [one for one in (emotions, id2label, label2id) if one is not None]
    if named and not num_labels and all(isinstance(one, (list, tuple, dict)) and not one for one in named):
        return []
    for name, places in (("id2label", id2label), ("label2id", label2id)):
        if not isinstance(places, (dict, type(None))):
            raise ValueError(f"{name}={places!r} must be a dict of all labels; a list of them is given as emotions")
    given = {}
    if emotions is not None:
        given["emotions"] = check_words("emotions", emotions)
    if id2label is not None:
        given["id2label"] = _in_order("id2label", {word: place for place, word in dict(id2label).items()}, id2label)
    if label2id is not None:
        given["label2id"] = _in_order("label2id", dict(label2id), label2id)
    (first, words), *others = given.items() or [("", None)]
    for other, theirs in others:
        if theirs != words:
            raise ValueError(f"{first} and {other} disagree ({words} and {theirs}): give one of them, or both alike")
    if words is not None and num_labels not in (None, len(words)):
        raise ValueError(f"num_labels={num_labels}, and {first} names {len(words)}: {', '.join(words)}")
    return words if words is None else refuse_one_word("emotions", words)


def require_emotions(emotions: list[str]) -> None:
    """Make sure that a model that names emotions has some.

    Raises:
        ValueError: If there are none, as for an encoder that was trained without labels.
    """
    if not emotions:
        raise ValueError(
            "the configuration names no emotions, as that of an encoder that was trained without labels: give "
            "emotions=[...]"
        )


def _in_order(name: str, places: dict, given: dict) -> list[str]:
    try:
        placed = {int(place): word for word, place in places.items()}
    except (TypeError, ValueError):
        placed = {}
    if not placed or sorted(placed) != list(range(len(given))):
        raise ValueError(f"{name}={given!r} must have one word for each place 0, 1, 2, ...")
    return check_words(name, [placed[place] for place in range(len(placed))])
