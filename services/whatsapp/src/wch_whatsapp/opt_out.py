"""Whether a customer's message is an opt-out from marketing, and by which word. No I/O after the words are read."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

StopWordPlace: TypeAlias = Literal["message", "first_line", "anywhere"]
_PLACES: Final[dict[StopWordPlace, str]] = {
    "message": "as the whole message",
    "first_line": "alone on the first line",
    "anywhere": "within the message",
}
_OWN = "WCH_WHATSAPP_STOP_WORDS"
_LONGEST: Final = 4096
"""Characters of a message that are read: the most that WhatsApp sends."""
_TOKEN = re.compile(r"[^\W_]+")
_LINE_END = re.compile(r"[\n\r\u2028\u2029]")
# A name behind the word: "STOP -- Ada", "Stop – Ada".
_SIGNATURE = re.compile(r"--|\s[-\N{EN DASH}\N{EM DASH}]\s|\N{EM DASH}")
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
        tokens = _tokens(text)
        if found := self._alone(tokens):
            return OptOut(*found, "message")
        if self._place == "message":
            return None
        line = next(filter(_tokens, _LINE_END.split(text)), "")
        unsigned = _SIGNATURE.split(line, maxsplit=1)[0]
        if found := self._alone(_tokens(line)) or self._alone(_tokens(unsigned)):
            return OptOut(*found, "first_line")
        if self._place == "anywhere" and (found := self._within(tokens)):
            return OptOut(*found, "anywhere")
        return None

    def _alone(self, tokens: Tokens) -> tuple[str, str] | None:
        """Return the phrase that the words are, said once or several times, politely or not."""
        for rest in (tokens, self._impolite(tokens)):
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
        return rest

    def _within(self, tokens: Tokens) -> tuple[str, str] | None:
        starts = range(len(tokens))
        phrases = (tokens[start : start + length] for start in starts for length in range(1, self._longest + 1))
        return next((found for phrase in phrases if (found := self._phrases.get(phrase))), None)


def _tokens(text: str) -> Tokens:
    """Return the words of a text in one spelling: without case, accents, invisible marks, punctuation and emoji."""
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(one for one in decomposed if unicodedata.category(one) not in ("Mn", "Cf"))
    return tuple(_TOKEN.findall(plain.casefold().replace("ı", "i")))  # its upper case in Turkish is I


@cache
def _shipped() -> _Words:
    languages = tomllib.loads(files(__package__).joinpath("opt_out_words.toml").read_text(encoding="utf-8"))
    phrases: dict[Tokens, tuple[str, str]] = {}
    for language in ("en", *languages):  # a word of several languages counts as English if it is
        for word in languages[language]["words"]:
            phrases.setdefault(_tokens(word), (word, language))
    polite = tuple(_tokens(word) for one in languages.values() for word in one["polite"])
    return _Words(phrases, polite)
