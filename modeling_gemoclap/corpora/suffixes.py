"""Suffixes of audio files."""

AUDIO = (".wav", ".flac")  # the formats of the published corpora
OTHER_AUDIO = (".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".webm", ".aif", ".aiff", ".au", ".mp4")
RARE_AUDIO = (".aifc", ".caf", ".w64", ".3gp", ".mkv", ".mov", ".amr")
