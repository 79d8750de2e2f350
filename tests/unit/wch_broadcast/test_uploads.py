"""Reading CSV files of recipients, and publishing them in parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wch_broadcast.csv_rows import RefusedLine, WrongHeadings
from wch_broadcast.uploads import Notes, lines_of, read, upload
from wch_common.events.broadcast import CampaignRecipient, RecipientsRequested
from wch_common.events.whatsapp_content import Media, TemplateButton

FILE = """to,body:name,body:code,button0:url
+15550100001,Ada,X1,u/1
(555) 010-0002,,,
nobody,Bob,,
+15550100003,Eve,,,
+15550100004,"two
lines",X4,
+15550100001,Gap,,
"""


def test_wrong_lines_are_refused_with_number_and_reason() -> None:
    found = list(read(iter(FILE.splitlines(keepends=True)), "US"))
    good = [one for one in found if isinstance(one, CampaignRecipient)]
    assert [one.to for one in good] == ["+15550100001", "+15550100002", "+15550100004"]
    first = good[0]
    assert [(one.name, one.text) for one in first.body or ()] == [("code", "X1"), ("name", "Ada")]
    assert [(one.index, one.kind, one.value) for one in first.buttons or ()] == [(0, "url", "u/1")]
    assert good[2].body is not None
    assert good[2].body[1].text == "two\nlines"
    wrong = [one for one in found if isinstance(one, RefusedLine)]
    assert [one.line for one in wrong] == [4, 5, 8]
    assert "to: not a phone number" in wrong[0].reason
    assert "more values" in wrong[1].reason
    assert "nobody" not in wrong[0].reason
    assert wrong[2].reason == "body:code: has no value; fill it, or leave every body column of the line empty"


@pytest.mark.parametrize(
    ("to", "refused"),
    [
        ("447911000000", True),
        ("+4915120000000", True),
        ("+5511990000000", True),
        ("+4915120000001", False),
        ("+12025000000", False),
    ],
)
def test_a_number_that_a_spreadsheet_has_rounded_is_refused(to: str, *, refused: bool) -> None:
    (found,) = read(iter(["to\n", f"{to}\n"]), "GB")
    assert isinstance(found, RefusedLine) is refused
    if isinstance(found, RefusedLine):
        assert "ends with six zeros" in found.reason


def test_lines_whose_values_are_changed_or_missing_are_noted() -> None:
    notes = Notes()
    text = (
        'to,body1,header\n+15550100001,Ada,Hi\n+15550100002,"two\nlines",Hi\n+15550100003,,Hi\n+15550100004,a,b     c\n'
    )
    assert len(list(read(iter(text.splitlines(keepends=True)), None, notes))) == 4
    assert (notes.changed.count, notes.changed.first) == (2, [3, 6])
    assert (notes.without_values.count, notes.without_values.first) == (1, [5])
    list(read(iter(["to,header\n", "+15550100001,x\n"]), None, plain := Notes()))
    assert plain == Notes(), "a file without body columns lacks no values"


def test_values_are_in_the_order_of_their_numbers() -> None:
    numbers = [10, 2, 1, *range(3, 10)]
    headings, values = (",".join(f"{word}{number}" for number in numbers) for word in ("body", "v"))
    (one,) = read(iter([f"to,{headings}\n", f"+15550100001,{values}\n"]))
    assert isinstance(one, CampaignRecipient)
    assert [value.text for value in one.body or ()] == [f"v{number}" for number in range(1, 11)]


@pytest.mark.parametrize("from_input", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_and_the_input_may_begin_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, *, from_input: bool
) -> None:
    file = tmp_path / "guests.csv"
    file.write_bytes('"to",body1\r\n+15550100001,"Zoë\r\nEve"\r\n'.encode(encoding))
    with file.open(encoding="latin-1") as given:
        monkeypatch.setattr(sys, "stdin", given)
        with lines_of(Path("-") if from_input else file) as lines:
            (one,) = read(lines)
        assert not given.closed
    assert isinstance(one, CampaignRecipient)
    assert [value.text for value in one.body or ()] == ["Zoë\r\nEve"]


def test_empty_headings_at_the_end_are_ignored_if_their_values_are_empty() -> None:
    text = "to,body1,, \n+15550100001,Ada,,\n+15550100002,Bob\n+15550100003,Eve,, x\n+15550100004,Zoë,,,\n"
    found = list(read(lines(text)))
    assert [one.to for one in found if isinstance(one, CampaignRecipient)] == ["+15550100001", "+15550100002"]
    surplus = "has more values than there are headings"
    assert found[2:] == [RefusedLine(4, surplus), RefusedLine(5, surplus)]
    with pytest.raises(WrongHeadings, match="unknown columns: ''"):
        list(read(lines("to,,body1\n+15550100001,,Ada\n")))


@pytest.mark.parametrize(
    "headings", ["phone,body1", "body1", "to,to", "to,body", "to,button1:what", "to,body0", "to,body01", ""]
)
def test_unknown_missing_and_repeated_columns_are_refused(headings: str) -> None:
    with pytest.raises(WrongHeadings, match="Columns are to"):
        list(read(iter([f"{headings}\n", "+15550100001,x\n"])))


@pytest.mark.parametrize(("recipients", "parts"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (2000, 2), (2001, 3)])
def test_only_the_last_part_gives_the_number_of_parts(recipients: int, parts: int) -> None:
    published: list[RecipientsRequested] = []

    def guests() -> Iterator[CampaignRecipient]:
        yield from (CampaignRecipient(to=f"+1555{n:07d}") for n in range(recipients))

    assert upload(guests(), "l", published.append) == parts
    assert [one.part for one in published] == list(range(1, parts + 1))
    assert [one.parts for one in published] == [None] * (parts - 1) + [parts]
    assert sum(len(one.recipients) for one in published) == recipients


def test_files_coupons_and_flows_have_columns() -> None:
    file = [
        "to,header:document,button0:copy_code,button1:flow\n",
        "+15550100001,https://shop.example/1.pdf,ADA10,ada\n",
        "+15550100002,shop.example/2.pdf,EVE10,eve\n",
        "+15550100003,https://shop.example/3.pdf,EVE-10,eve\n",
    ]
    one, *wrong = read(iter(file))
    assert isinstance(one, CampaignRecipient)
    assert one.header == Media(kind="document", link="https://shop.example/1.pdf")
    assert sorted(one.buttons or (), key=lambda button: button.index) == [
        TemplateButton(index=0, kind="copy_code", value="ADA10"),
        TemplateButton(index=1, kind="flow", flow_token="ada"),
    ]
    assert wrong == [
        RefusedLine(3, "header:document must be an http or https address, like https://shop.example/invoice.pdf"),
        RefusedLine(4, "button0:copy_code: the coupon code must consist of A-Z, a-z and 0-9 only"),
    ]


def test_missing_values_and_unclosed_quotation_marks_are_refused() -> None:
    (one,) = read(iter(["to,body1,body2\n", "+15550100001,,X\n"]))
    assert one == RefusedLine(2, "body1: has no value; fill it, or leave every body column of the line empty")
    endless = ["to,body1\n", "+15550100001,Ada\n", '+15550100002,"Eve\n', *(["x" * 1000 + "\n"] * 200)]
    first, second = read(iter(endless))
    assert isinstance(first, CampaignRecipient)
    assert isinstance(second, RefusedLine)
    assert "is a quotation mark not closed?" in second.reason


def lines(text: str) -> Iterator[str]:
    """Return the lines of a file."""
    return iter(text.splitlines(keepends=True))


UNCLOSED = "cannot be read, nor can the lines after it"
GUESTS = [f"+1555010{number:04d},guest {number}\n" for number in range(3000)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('to,body1\n+15550100001,"Ada\n+15550100002,Bob\n+15550100003,Eve\n', 2),
        ('to,body1\n+15550100001,Ada\n\n+15550100002,"a"b\n+15550100003,Eve\n', 4),
        ('to,body1\n+15550100001,"Ada\n+15550100002,"Bob"\n', 2),
        ("".join(("to,body1\n", *GUESTS[:1500], '+15550109999,"Ada\n', *GUESTS[1500:])), 1502),
    ],
)
def test_a_quotation_mark_that_is_not_closed_sends_nobody_the_lines_after_it(text: str, line: int) -> None:
    *good, last = read(lines(text))
    assert len(good) == line - 2 - text[: text.index('"')].count("\n\n")
    assert isinstance(last, RefusedLine)
    assert last.line == line
    assert last.reason.startswith(UNCLOSED)
    assert last.reason.endswith("is a quotation mark not closed?")


@pytest.mark.parametrize(
    "recipient", ["+15550100002,Bob", "Bob,(555) 010-0002", "US.15550100001771 , Bob", "x,+15550100002,"]
)
def test_a_value_with_another_lines_recipient_is_refused(recipient: str) -> None:
    text = f'to,body1\n+15550100001,"Ada\n{recipient}\nEve"\n+15550100004,Zoë\n'
    wrong, good = read(lines(text), "US")
    assert isinstance(good, CampaignRecipient)
    assert wrong == RefusedLine(
        2,
        "body1: has several lines, and one of them has a recipient like a line of its own: is a quotation mark not closed?",
    )


def test_a_value_of_several_lines_may_have_commas_and_a_number_in_its_text() -> None:
    text = 'to,body1\n+15550100001,"Ada, dear,\ncall +15550100002, or\n+15550100003"\n'
    (good,) = read(lines(text))
    assert isinstance(good, CampaignRecipient)


def test_headings_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(WrongHeadings, match="the first line cannot be read"):
        list(read(lines('to,"body1\n+15550100001,Ada\n')))


def test_a_refused_line_of_several_lines_is_named_by_its_first() -> None:
    _, wrong = read(lines('to,body1\n+15550100001,Ada\nnobody,"Bob\nor Eve"\n'))
    assert isinstance(wrong, RefusedLine)
    assert wrong.line == 3


def test_values_of_buttons_are_refused_and_noted_like_those_of_the_body() -> None:
    text = 'to,button0:url,button1:quick_reply\n+15550100001,a b,yes\n+15550100002,a,"y\nes"\n+15550100003,"a\n",yes\n'
    wrong, *good = read(lines(text), None, notes := Notes())
    assert wrong == RefusedLine(2, "button0:url: has white space in it, which no address has; write a space as %20")
    assert len(good) == 2
    assert notes.changed.first == [3, 5]


@pytest.mark.parametrize("column", ["body1", "header", "button0:quick_reply"])
def test_a_line_with_the_null_character_is_refused_alone(column: str) -> None:
    wrong, good = read(lines(f"to,{column}\n+15550100001,An\0na\n+15550100002,Bob\n"))
    assert wrong == RefusedLine(2, f"{column}: must not contain the character U+0000, which cannot be stored")
    assert isinstance(good, CampaignRecipient)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("body1,body3", "has body3 but not body2, so that the values would shift"),
        ("body2", "has body2 but not body1"),
        ("body3,body4", "has body4 but not body1"),
        ("body01,body1", "unknown columns: 'body01'"),
        ("body0,body1", "unknown columns: 'body0'"),
        ("body\u0661", "unknown columns: 'body\u0661'"),
        ("button00:url", "unknown columns: 'button00:url'"),
        ("body1,body:name", "body1 and body:name"),
        ("header,header:image", "header and header:image"),
        ("header:video,header:image", "header:video and header:image"),
        ("button0:url,button0:copy_code", "button0:url and button0:copy_code"),
        ("button0:copy_code,button1:copy_code", "button0:copy_code and button1:copy_code"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(columns: str, problem: str) -> None:
    values = "".join(",x" for _ in columns.split(","))
    with pytest.raises(WrongHeadings) as refused:
        list(read(lines(f"to,{columns}\n+15550100001{values}\n")))
    assert problem in str(refused.value)
