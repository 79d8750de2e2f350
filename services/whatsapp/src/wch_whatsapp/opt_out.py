"""Whether a customer's message is an opt-out from marketing, and by which word. No I/O after the words are read."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

StopWordPlace: TypeAlias = Literal["message", "first_line", "anywhere"]
_PLACES: Final[dict[StopWordPlace, str]] = {
    "message": "as the whole message",
    "first_line": "alone on the first line",
    "anywhere": "within the message",
}
_OWN = "WCH_WHATSAPP_STOP_WORDS"
_LONGEST: Final = 4096
"""Characters of a message that are read: the most that WhatsApp sends."""
_MOST_WORDS: Final = 40
"""Of an opt-out with its repetitions and thanks; removing thanks takes time that grows with the square of their number."""
_FOLDED = ("LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW")
_UNSEPARATED = ("CJK", "HIRAGANA", "KATAKANA", "THAI")
_TONAL = ("vi",)
"""Languages in which a word without its accents may be another one, such as a name."""
_SAME = {"ı": "i"}  # its upper case in Turkish is I
# Selectors of a glyph, joiners, fillers and the frame of a key, which no reader sees.
_IGNORED = re.compile(
    "[\N{ARABIC TATWEEL}\N{COMBINING GRAPHEME JOINER}\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\N{HANGUL FILLER}"
    "\N{COMBINING ENCLOSING KEYCAP}\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_LINE_END = re.compile(r"[\n\r\u2028\u2029]")
# A name behind the word: "STOP -- Ada", "Stop – Ada"; behind other marks it begins with a capital: "STOP, Ada", "stop (Ada)".
_DASH = re.compile(r"--|\s[-\N{EN DASH}\N{EM DASH}]\s|\N{EM DASH}")
_MARK = re.compile(r"[,.;:(/|~\N{FULLWIDTH COMMA}\N{IDEOGRAPHIC FULL STOP}]|\s-")
_MOST_MARKS: Final = 8
_LONGEST_SIGNATURE: Final = 3
Tokens: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class OptOut:
    """The word that counted, the language or setting that it is from, and where it stood."""

    word: str
    language: str
    place: StopWordPlace

    def __str__(self) -> str:
        return f"{self.word!r} ({self.language}) {_PLACES[self.place]}"


@dataclass(frozen=True)
class _Words:
    phrases: dict[Tokens, tuple[str, str]]
    """The words of each phrase, with the phrase and its language."""
    polite: tuple[Tokens, ...]


class OptOutReader:
    """Recognises opt-outs by the words of every language and by those of the deployment (`more`)."""

    def __init__(self, more: Iterable[str] = (), place: StopWordPlace = "first_line") -> None:
        shipped = _shipped()
        own = {tokens: (word, _OWN) for word in more if (tokens := _tokens(word))}
        self._phrases = {**shipped.phrases, **own}
        self._polite = shipped.polite
        self._longest = max(map(len, self._phrases))
        self._place: StopWordPlace = place

    def read(self, text: str | None) -> OptOut | None:
        """Return the opt-out in a message, or None."""
        text = (text or "")[:_LONGEST]
        if found := self._alone(text):
            return OptOut(*found, "message")
        if self._place == "message":
            return None
        line = next(filter(_tokens, _LINE_END.split(text)), "")
        if found := next(filter(None, map(self._alone, (line, *self._unsigned(line)))), None):
            return OptOut(*found, "first_line")
        if self._place == "anywhere" and (
            found := self._within(_tokens(text)) or self._within(_tokens(text, exact=True))
        ):
            return OptOut(*found, "anywhere")
        return None

    def _alone(self, text: str) -> tuple[str, str] | None:
        """Return the phrase that a text is, said once or several times, politely or not."""
        for tokens in (_tokens(text), _tokens(text, exact=True)):
            if len(characters := _characters(tokens)) > _MOST_WORDS:
                continue
            for rest in (tokens, self._impolite(tokens), self._impolite(characters)):
                for length in range(1, min(self._longest, len(rest)) + 1):
                    if rest == rest[:length] * (len(rest) // length) and (found := self._phrases.get(rest[:length])):
                        return found
        return None

    def _impolite(self, tokens: Tokens) -> Tokens:
        rest, before = tokens, None
        while rest != before:
            before = rest
            for polite in self._polite:
                if rest[: len(polite)] == polite:
                    rest = rest[len(polite) :]
                if rest and rest[-len(polite) :] == polite:
                    rest = rest[: -len(polite)]
            # "STOP 36180": the number that an advertisement names.
            if len(rest) > 1 and rest[-1].isdigit():
                rest = rest[:-1]
        return rest

    def _unsigned(self, line: str) -> Iterator[str]:
        """Yield what a line may say besides the signature at its end."""
        for mark in islice(_DASH.finditer(line), _MOST_MARKS):
            if len(line[mark.end() :].split()) <= _LONGEST_SIGNATURE:
                yield line[: mark.start()]
        for mark in islice(_MARK.finditer(line), _MOST_MARKS):
            words = line[mark.end() :].split()
            if len(words) <= _LONGEST_SIGNATURE and not any(map(self._is_no_name, words)):
                yield line[: mark.start()]

    def _is_no_name(self, word: str) -> bool:
        return word[0].islower() and _tokens(word) not in self._polite

    def _within(self, tokens: Tokens) -> tuple[str, str] | None:
        starts = range(len(tokens))
        phrases = (tokens[start : start + length] for start in starts for length in range(1, self._longest + 1))
        return next((found for phrase in phrases if (found := self._phrases.get(phrase))), None)


def _tokens(text: str, *, exact: bool = False) -> Tokens:
    """Return the words of a text in one spelling: without case, invisible marks, punctuation, emoji, and unless `exact`, accents.

    Marks are accents of an alphabet that is read without them as well; in others, such as Devanagari, they are vowels.
    """
    words: list[str] = []
    inside = folds = False
    for one in unicodedata.normalize("NFKC" if exact else "NFKD", text).casefold():
        category = unicodedata.category(one)
        if category == "Cf" or _IGNORED.match(one) or (folds and category == "Mn" and not exact):
            continue
        if category[0] not in "LNM" or (category[0] == "M" and not inside):
            inside = False
            continue
        if not inside:
            words.append("")
        if category[0] != "M":
            folds = unicodedata.name(one, "").startswith(_FOLDED)
        inside = True
        words[-1] += _SAME.get(one, one)
    return tuple(words)


def _characters(tokens: Tokens) -> Tokens:
    """Return the characters of a text in a script that does not separate words; other texts are returned as they are."""
    text = "".join(tokens)
    return tuple(text) if text and unicodedata.name(text[0], "").startswith(_UNSEPARATED) else tokens


@cache
def _shipped() -> _Words:
    languages = tomllib.loads(files(__package__).joinpath("opt_out_words.toml").read_text(encoding="utf-8"))
    phrases: dict[Tokens, tuple[str, str]] = {}
    polite: dict[Tokens, None] = {}
    for language in ("en", *languages):  # a word of several languages counts as English if it is
        for word in languages[language]["words"]:
            is_ambiguous = language in _TONAL and len(_tokens(word)) == 1
            for form in (_tokens(word, exact=True),) if is_ambiguous else _forms(word):
                phrases.setdefault(form, (word, language))
        for word in languages[language]["polite"]:
            polite |= dict.fromkeys((*_forms(word), _tokens(word, exact=True)))
    return _Words(phrases, tuple(polite))


def _forms(word: str) -> tuple[Tokens, ...]:
    return _tokens(word), _characters(_tokens(word))
