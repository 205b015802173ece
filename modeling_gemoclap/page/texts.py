"""The texts of the page that do not depend on a recording."""

from __future__ import annotations

from .analysis import MAX_FILE_MEGABYTES, MAX_LABELS, MAX_SECONDS

TITLE = "Emotions in speech"
INTRODUCTION = (
    "# Emotions in speech\n\n"
    "Record or upload speech. A GEmo-CLAP model compares it with the labels that you choose, as a whole and over time."
)
CONSENT = (
    "**Ask people before you record or upload their voice.** Recordings are processed on the computer that runs this "
    "page and deleted from it about {minutes} minutes after their upload. The page loads nothing from other servers "
    "and counts no visits."
)
LABELS_HELP = f"One on a line, or separated by commas; 2 to {MAX_LABELS}. Any words can be tried."
FIXED_LABELS_HELP = "This checkpoint has a classifier: its labels cannot be changed."
AUDIO_HELP = f"at most {MAX_SECONDS // 60} minutes and {MAX_FILE_MEGABYTES} MB."
LIMITS = """## What the results mean, and what they do not

- **One of the labels is always the answer**, also for noise, music or a label list without a fitting word. A score says how well a label fits *compared with the other labels*, not whether the emotion is there.
- **The included models were trained on acted German speech** of a few professional speakers. Spontaneous speech, other languages, accents, microphones, children and old people are mostly untested. An expression is not a feeling: nobody can read from a voice alone what a person feels.
- **Scores are calibrated for the labels of the model only**, on the kind of recordings that it was trained on. With other labels they are ranks at best.
- **The timeline classifies short stretches of speech.** They carry less information than the whole recording, and the borders are approximate. Pitch and loudness are simple estimates for orientation.
- **Gender, if asked for, is one of two words** of the training labels. It says nothing about a person's identity.

## What it must not be used for

Do not use the results for medical or psychological assessment, for decisions about people (hiring, management, school, insurance, credit, policing, border control), or to monitor anyone without their knowledge. In the European Union, the AI Act (Regulation (EU) 2024/1689) prohibits AI systems that infer emotions of natural persons in the workplace and in education institutions, except for medical or safety reasons (Article 5(1)(f)), classifies other emotion recognition systems as high-risk (Annex III), and requires their deployers to inform the people exposed to them (Article 50(3)). This is a summary and no legal advice.

## Consent and privacy

- Ask the people whose voices you record or upload, and tell them what you do with the result. A voice can be personal data.
- A recording is kept in a temporary folder of the computer that runs this page, so that it can be played and analysed again, and is deleted about {minutes} minutes after its upload, and when the page's server stops. Results are not stored.
- There are no analytics and no telemetry, and the browser is told to load nothing from other servers.
"""  # noqa: E501
