"""One vocabulary: words that were replaced stay out of documents, help, settings, errors, logs and identifiers."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each with the word to use instead; house words are defined in ARCHITECTURE.md.
REPLACED = {
    "rung": "retry delay, delay queue",
    "ladder": "retry delays",
    "asker": "requester",
    "unrouted": "unroutable",
    "given_up": "on_dead_letter",
    "held_back": "paused_by",
    "upkeep": "maintenance",
    "wording": "message text, reminder text",
    "verdict": "decision, error policy",
    "taker": "dispatch",
    "drift": "topology diff",
}
_REPLACED = re.compile("|".join(rf"(?<![a-z]){word}s?(?![a-z])" for word in REPLACED), re.IGNORECASE)
_LETTER = re.compile(r"(?<![a-z])letters?(?![a-z])", re.IGNORECASE)
_DEAD = re.compile(r"(?:dead|two)[ _-]$", re.IGNORECASE)


def old_words(text: str) -> list[str]:
    """Return the replaced words in a text, and `letter` without `dead` before it."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)  # DeadLetter is two words
    letters = [found[0] for found in _LETTER.finditer(plain) if not _DEAD.search(plain[: found.start()])]
    return [found[0] for found in _REPLACED.finditer(plain)] + letters


def files(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


OTHER_WORDS = {Path(__file__)}
PYTHON = [path for path in files("*.py") if path not in OTHER_WORDS]
DOCUMENTS = files("*.md", "*.yaml", "*.toml", "*.svg", "Makefile", "deploy/local/bootstrap", "contracts/*.json")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are its own")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_the_present_words(path: Path) -> None:
    """Benchmark results keep the texts of other programs."""
    found = {
        (number, word)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for word in old_words(line)
        if path.name != "compare.svg"
    }
    assert found == set()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are its own")
@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_uses_the_present_words(path: Path) -> None:
    """Identifiers, strings, docstrings and comments."""
    kinds = {tokenize.NAME, tokenize.STRING, tokenize.COMMENT}
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    found = {(token.start[0], word) for token in tokens if token.type in kinds for word in old_words(token.string)}
    assert found == set()


@pytest.mark.parametrize(
    "text",
    ["a rung of 60 s", "the Ladder", "TAKERS", "given_up", "unrouted", "class Letter", "letters_of", "schemaDrift"],
)
def test_a_replaced_word_is_found(text: str) -> None:
    assert old_words(text)


@pytest.mark.parametrize(
    "text",
    [
        "a dead letter",
        "DeadLetter",
        "x-dead-letter-exchange",
        "dead_letters",
        "newsletter",
        "two-letter",
        "wrung",
        "lettering",
    ],
)
def test_other_words_are_not_mistaken_for_replaced_ones(text: str) -> None:
    assert old_words(text) == []


def test_no_name_of_a_class_has_two_meanings() -> None:
    """Within the library, events included; a name that two rooms need gets a qualifier."""
    names: dict[str, set[str]] = {}
    for path in files("libs/common/src/*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    assert {name: sorted(places) for name, places in names.items() if len(places) > 1} == {}
