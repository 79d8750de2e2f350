"""Values of a message against a template as Meta has it, and what the recipient sees."""

from __future__ import annotations

from typing import Any

import pytest

from wch_common.events.whatsapp_content import Media, Parameter, Template, TemplateButton
from wch_common.integrations.templates import (
    EmptyValue,
    MetaTemplate,
    Preview,
    empty_values,
    is_changed,
    legal_text,
    misfits,
    preview,
)


def meta(*components: dict[str, Any], parameter_format: str = "POSITIONAL") -> MetaTemplate:
    """Return a template of Meta's with these components."""
    return MetaTemplate("hello", "en_US", "APPROVED", "MARKETING", parameter_format, list(components))


def body(text: str) -> dict[str, Any]:
    return {"type": "BODY", "text": text}


def header(format_: str, text: str = "") -> dict[str, Any]:
    return {"type": "HEADER", "format": format_, **({"text": text} if text else {})}


def buttons(*each: dict[str, Any]) -> dict[str, Any]:
    return {"type": "BUTTONS", "buttons": list(each)}


TRACK = {"type": "URL", "text": "Track", "url": "https://shop.example/t/{{1}}"}
STATIC = {"type": "URL", "text": "Shop", "url": "https://shop.example"}
REPLY = {"type": "QUICK_REPLY", "text": "Stop"}
CALL = {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100001"}
COUPON = {"type": "COPY_CODE", "text": "Copy offer code"}


def message(*texts: str, **changes: Any) -> Template:
    """Return a message with these values for the body."""
    return Template(name="hello", language="en_US", body=tuple(Parameter(text=one) for one in texts), **changes)


def named(**texts: str) -> Template:
    values = tuple(Parameter(name=name, text=text) for name, text in texts.items())
    return Template(name="hello", language="en_US", body=values)


def pressed(index: int, kind: Any, value: str = "x") -> Template:
    return message(buttons=(TemplateButton(index=index, kind=kind, value=value),))


IMAGE = Media(kind="image", link="https://shop.example/a.png")
TWO = meta(body("Hi {{1}}, {{2}}, {{1}}"))
NAMES = meta(body("Hi {{first_name}} of {{town}}"), parameter_format="NAMED")


@pytest.mark.parametrize(
    ("given", "template", "found"),
    [
        (message("a", "b"), TWO, []),
        (message("a"), TWO, ["has 2 placeholders in its body, for which 1 value is given"]),
        (message(), TWO, ["has 2 placeholders in its body, for which no values are given"]),
        (message("a"), meta(body("Hi")), ["has no placeholders in its body, for which 1 value is given"]),
        (named(a="1", b="2"), TWO, ["has numbers as placeholders in its body, not names like a"]),
        (named(first_name="Ada", town="Bath"), NAMES, []),
        (named(town="Bath", first_name="Ada"), meta(*NAMES.components, parameter_format=""), []),
        (named(first_name="Ada"), NAMES, ["needs a value for town in its body"]),
        (named(first_name="Ada", town="Bath", age="3"), NAMES, ["has no placeholder age in its body"]),
        (message("Ada", "Bath"), NAMES, ["needs a value for first_name, town in its body"]),
        (message("Ada"), NAMES, ["has 2 placeholders in its body, for which 1 value is given"]),
        (message(), meta(header("IMAGE")), ["needs an image in its header"]),
        (message(header=IMAGE), meta(header("IMAGE")), []),
        (message(header=IMAGE), meta(header("VIDEO")), ["needs a video in its header, not an image"]),
        (message(header=IMAGE), meta(header("TEXT", "Hi {{1}}")), ["needs a text in its header, not an image"]),
        (message(header=Parameter(text="a")), meta(header("TEXT", "Hi {{1}}")), []),
        (message(), meta(header("TEXT", "Hi {{1}}")), ["needs a text in its header"]),
        (message(header=Parameter(text="a")), meta(header("TEXT", "Hi")), ["has no placeholder in its header"]),
        (message(header=IMAGE), meta(body("Hi")), ["has no header"]),
        (message(), meta(header("HOLOGRAM")), []),
        (message(), meta(buttons(REPLY, STATIC, CALL)), []),
        (message(), meta(buttons(REPLY, TRACK)), ["needs a value for its button 1 (Track), of the kind url"]),
        (pressed(1, "url"), meta(buttons(REPLY, TRACK)), []),
        (pressed(0, "quick_reply"), meta(buttons(REPLY, STATIC)), []),
        (pressed(0, "quick_reply"), meta(buttons(TRACK)), ["takes a value of the kind url for its button 0 (Track), not quick_reply"]),
        (pressed(0, "url"), meta(buttons(STATIC)), ["takes no value for its button 0 (Shop)"]),
        (pressed(0, "url"), meta(buttons(CALL)), ["takes no value for its button 0 (Call)"]),
        (pressed(3, "url"), meta(buttons(STATIC)), ["has no button 3"]),
        (message(), meta(buttons(COUPON)), ["needs a value for its button 0 (Copy offer code), of the kind copy_code"]),
        (message(), meta(buttons({"type": "TELEPATHY", "text": "?"})), []),
        (message(), meta({"type": "CAROUSEL", "cards": []}), ["needs values for its carousel, which this version cannot send"]),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_named(given: Template, template: MetaTemplate, found: list[str]) -> None:
    assert misfits(given, template) == found


def test_a_recipient_sees_values_media_and_buttons_as_they_are_sent() -> None:
    template = meta(
        header("IMAGE"), body("Hi {{1}},\n{{2}}!"), {"type": "FOOTER", "text": "Bye"}, buttons(REPLY, TRACK)
    )
    given = message("Ada\t B", " x\n\ny ", header=IMAGE, buttons=(TemplateButton(index=1, kind="url", value=" 7\n"),))
    assert preview(given, template) == Preview(
        "Hi Ada B,\nx y!", "[image https://shop.example/a.png]", "Bye", ("Stop", "Track → https://shop.example/t/7")
    )
    assert preview(message("Ada"), meta(header("TEXT", "On {{1}}"), body("{{1}} {{2}}"))) == Preview(
        "Ada {{2}}", "On {{1}}"
    )


@pytest.mark.parametrize(
    ("given", "sent"), [("a\nb", "a b"), ("a \t b", "a b"), ("a     b", "a b"), ("a    b", "a    b"), (" a ", "a")]
)
def test_a_value_becomes_what_meta_accepts(given: str, sent: str) -> None:
    assert legal_text(given) == sent
    assert is_changed(given) == (sent != given.strip())


@pytest.mark.parametrize("given", ["", "  ", "\n", "\u2028 \t"])
def test_an_empty_value_is_found(given: str) -> None:
    with pytest.raises(EmptyValue):
        legal_text(given)
    button = TemplateButton(index=2, kind="url", value="  ")
    wrong = message("a", given, header=Parameter(text=given)).model_copy(update={"buttons": (button,)})
    assert empty_values(wrong) == ["header", "body 2", "button 2"]
