"""Which messages of customers are opt-outs: words of many languages, however they are written, alone or within a sentence."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import wch_whatsapp.opt_out
from wch_whatsapp.opt_out import OptOut, OptOutReader, StopWordPlace

WORDS = tomllib.loads(Path(wch_whatsapp.opt_out.__file__).with_name("opt_out_words.toml").read_text(encoding="utf-8"))
EVERY_WORD = [(word, language) for language, one in WORDS.items() for word in one["words"]]
READER = OptOutReader()


@pytest.mark.parametrize(("word", "language"), EVERY_WORD)
def test_every_word_counts_as_people_write_it(word: str, language: str) -> None:
    polite = WORDS[language]["polite"][0]
    for text in (word, word.upper(), word.title(), f"  {word}!!! ", f"\u200e{word}\u200d", f"«{word}.»", f"{word} 🛑🙏🏽",
                 f"{word} {word}", f"{polite} {word}", f"{word}, {polite}", f"{word}\n\nAda", f"\n{word}\n-- \nSent from my phone",
                 f"{word} -- Ada", f"{word} – Ada Miller", f"*{word}*", f"_{word}_"):  # fmt: skip
        assert READER.read(text) is not None, text


@pytest.mark.parametrize(
    ("text", "word", "language"),
    [
        ("ARRET", "arrêt", "fr"),
        ("arret svp", "arrêt", "fr"),
        ("Stop promotions", "stop promotions", "en"),
        ("STOP_PROMOTIONS", "stop promotions", "en"),
        ("Detener promociones", "detener promociones", "es"),
        ("PARAR PROMOCOES", "parar promoções", "pt"),
        ("desabonner", "désabonner", "fr"),
        ("请停止", "停止", "ja"),
        ("停止谢谢", "停止", "ja"),
        ("停止お願いします", "停止", "ja"),
        ("หยุดครับ", "หยุด", "th"),
        ("توقـف", "توقف", "ar"),
        ("DỪNG", "dừng", "vi"),
        ("dung lai", "dừng lại", "vi"),
        ("stopper", "stopper", "da"),
        ("Quit", "quit", "en"),
        ("Kündigen", "kündigen", "WCH_WHATSAPP_STOP_WORDS"),
    ],
)
def test_the_word_that_counted_is_known(text: str, word: str, language: str) -> None:
    assert OptOutReader(("kündigen",)).read(text) == OptOut(word, language, "message")


@pytest.mark.parametrize(
    "text",
    ["STOP, Anna", "STOP. Anna", "STOP (Anna)", "STOP / Anna", "STOP | Anna", "STOP ~ Anna", "STOP -Anna", "STOP: Anna", "Stop, LG Anna", "STOP LG", "Stop, please. Anna M. Miller",
     "STOP. Sent from my iPhone", "STOP Sent from my iPhone", "Hi stop please", "STOP SMS", "STOP 36180", "停止，安娜", "Abmelden, mfg Müller", "stop it", "unsub", "Baja. Ana"],
)  # fmt: skip
def test_a_signature_a_greeting_or_a_number_does_not_hide_the_word(text: str) -> None:
    assert READER.read(text) is not None


@pytest.mark.parametrize("text", ["停止\ufe0f", "रोकें\ufe0f", "หยุด\ufe0f", "중지\ufe0e", "停止\u034f", "बंद करें\u034f", "STOP\u3164", "STOP\u115f", "STOP\u20e3", "ST\u034fOP", "STOP\U000e0101"])  # fmt: skip
def test_marks_that_nobody_sees_do_not_hide_the_word(text: str) -> None:
    found = READER.read(text)
    assert found is not None
    assert found.place == "message"


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "🛑", "please", "please do not stop", "Don't stop sending me offers", "How do I stop this order?",
     "cancel", "end", "Stop - wait, I do want the red one", "Stop – do you have size 40?", "Stop, wait", "Stop. no, go on", "Stop (not you)", "Stop: Anna Bella Clara Dora", "40 stop", "请" * 4096, "please " * 580 + "stop", "when does the bus stop", "Dung", "Dũng", "Dũng\n0901234567", "বন্ধু", "रोकेंगे", "stopwatch", "non-stop", "Where is the stop?\nstop", "Is 40 in stock?"],
)  # fmt: skip
def test_other_messages_are_no_opt_outs(text: str | None) -> None:
    assert READER.read(text) is None


@pytest.mark.parametrize(
    ("text", "counts_in"),
    [
        ("stop", {"message", "first_line", "anywhere"}),
        ("stop\nI never asked for this", {"first_line", "anywhere"}),
        ("stop - Ada", {"first_line", "anywhere"}),
        ("I want you to stop promotions now", {"anywhere"}),
        ("I never asked for this.\nstop", {"anywhere"}),
        ("Is 40 in stock?", set()),
    ],
)
def test_a_setting_says_where_a_word_counts(text: str, counts_in: set[StopWordPlace]) -> None:
    places: tuple[StopWordPlace, ...] = ("message", "first_line", "anywhere")
    assert {place for place in places if OptOutReader(place=place).read(text)} == counts_in


def test_the_evidence_names_word_language_and_place_but_not_the_message() -> None:
    found = READER.read("Arrêtez !\nMy number is 555 0100, call me")
    assert str(found) == "'arrêtez' (fr) alone on the first line"


def test_words_of_the_setting_are_added_to_the_shipped_ones() -> None:
    reader = OptOutReader(("No gracias", " "))
    assert reader.read("no, gracias") == OptOut("No gracias", "WCH_WHATSAPP_STOP_WORDS", "message")
    assert reader.read("stop") is not None
    assert READER.read("no gracias") is None
