"""The table of reasons in the README of whatsapp, from `wch_common.events.failure_reasons`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wch_common.events.failure_reasons import FAILURE_REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).parents[4] / "services/whatsapp/README.md"
_BEGIN, _END = "<!-- reasons: written by `make contracts` -->\n", "<!-- end of reasons -->\n"


def table() -> str:
    """Return the reasons as a Markdown table."""
    lines = [
        "| reason | meaning | concerns | retryable | who acts | what to do | Meta's codes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, reason in FAILURE_REASONS.items():
        codes = ", ".join(_ranges(reason.codes))
        retryable, actor = "yes" if reason.retryable else "no", "" if reason.acts == "nobody" else reason.acts
        cells = (f"`{name}`", reason.meaning, reason.concerns, retryable, actor, reason.remedy, codes)
        lines.append(f"| {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def _ranges(codes: tuple[int, ...]) -> Iterator[str]:
    """Yield the codes, with a range for consecutive ones."""
    first = last = None
    for code in (*codes, None):
        if last is not None and code == last + 1:
            last = code
            continue
        if first is not None:
            yield str(first) if first == last else f"{first}–{last}"
        first = last = code


def with_table(text: str) -> str:
    """Return the README with the present table; raises ValueError if the README does not mark its place."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{README} must contain the lines {_BEGIN.strip()} and {_END.strip()}")
    return f"{before}{_BEGIN}{table()}{_END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
