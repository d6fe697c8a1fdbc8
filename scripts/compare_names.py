"""Compares the vocabulary's names with those of Unicode's CLDR, which has good words for what there is an emoji of.

apt-get install unicode-cldr-core
python scripts/compare_names.py [LANGUAGE ...]

A concept is compared where CLDR's English name is its English name too. Where ours is another word than CLDR's name,
and none of its keywords, both are printed, for somebody who knows the language to judge: CLDR names a picture ("lion's
face"), a tag what is in it. Exit status 1 only where CLDR is absent.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from worker.vocabulary import ENGLISH, languages, names  # noqa: E402

ANNOTATIONS = Path(os.environ.get("CLDR_ANNOTATIONS", "/usr/share/unicode/cldr/common/annotations"))
Annotations = dict[str, tuple[str, set[str]]]


def emoji_names(language: str) -> Annotations:
    """By emoji: its name, and its keywords, among which the name is too."""
    named: dict[str, str] = {}
    keywords: dict[str, set[str]] = {}
    for each in ElementTree.parse(ANNOTATIONS / f"{language}.xml").iter("annotation"):  # noqa: S314 - Debian's own file
        emoji, text = each.attrib["cp"], each.text or ""
        if each.attrib.get("type") == "tts":
            named[emoji] = text.strip()
        else:
            keywords[emoji] = {_comparable(word) for word in text.split("|")}
    return {emoji: (name, keywords.get(emoji, set()) | {_comparable(name)}) for emoji, name in named.items()}


def _comparable(word: str) -> str:
    return unicodedata.normalize("NFC", word).casefold().replace("\u2019", "'").strip()


def main() -> int:
    """Print for each language what differs, and how much does not; the exit status."""
    if not ANNOTATIONS.is_dir():
        print(f"there is no {ANNOTATIONS}: apt-get install unicode-cldr-core, or set CLDR_ANNOTATIONS")
        return 1
    english = {_comparable(name): emoji for emoji, (name, _) in emoji_names(ENGLISH).items()}
    emojis = {one: english[_comparable(name)] for one, name in names(ENGLISH).items() if _comparable(name) in english}
    for language in sys.argv[1:] or [each for each in languages() if each != ENGLISH]:
        theirs, ours = emoji_names(language), names(language)
        compared = {one: emoji for one, emoji in emojis.items() if emoji in theirs}
        same = [one for one, emoji in compared.items() if _comparable(ours[one]) in theirs[emoji][1]]
        for one in compared.keys() - set(same):
            print(f"{language}  {one}  {names(ENGLISH)[one]}: ours {ours[one]!r}, CLDR's {theirs[compared[one]][0]!r}")
        print(f"{language}: {len(same)} of {len(compared)} as CLDR has them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
