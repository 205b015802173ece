"""Emotion words beyond the classes, whose prompts a teacher teaches to the text encoder of its student."""

# Adjectives that describe how a person feels or sounds, roughly by family. A small text encoder from scratch cannot
# derive the meaning of a word from its letters, so a student knows these words and those of its own prompts only.
EMOTION_WORDS = (
    *("angry furious enraged irate livid mad cross outraged indignant hostile aggressive resentful bitter".split()),
    *("irritated annoyed frustrated exasperated impatient grumpy stern harsh cold offended jealous".split()),
    *("bored weary uninterested listless tired sleepy exhausted apathetic lethargic monotonous dull".split()),
    *("calm serene peaceful tranquil relaxed composed content quiet gentle soothing mellow patient".split()),
    *("contemptuous scornful disdainful sarcastic mocking arrogant condescending dismissive cynical".split()),
    *("disgusted revolted repelled nauseated sickened appalled repulsed horrified".split()),
    *("excited thrilled enthusiastic eager passionate energetic lively animated ecstatic elated".split()),
    *("fearful afraid scared anxious terrified frightened panicked nervous worried uneasy tense alarmed".split()),
    *("timid shy insecure distressed desperate stressed".split()),
    *("happy joyful cheerful delighted glad pleased merry jolly amused playful proud hopeful optimistic".split()),
    *("grateful loving tender affectionate warm friendly kind confident satisfied".split()),
    *("neutral unemotional impassive indifferent detached flat matter-of-fact serious".split()),
    *("sad unhappy sorrowful gloomy miserable depressed melancholic mournful grieving tearful heartbroken".split()),
    *("lonely hopeless disappointed dejected hurt ashamed guilty embarrassed regretful nostalgic".split()),
    *("surprised astonished amazed startled shocked stunned bewildered confused puzzled curious".split()),
)
