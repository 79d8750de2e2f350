"""The bodies of Cloud API calls, from the contract's contents: what `pywa` sends for the same message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wch_common.events.whatsapp_content import (
    PLACEHOLDER,
    Buttons,
    Choices,
    Media,
    Parameter,
    Product,
    ProductList,
    Template,
    TemplateButton,
    Text,
)

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from wch_common.events.whatsapp import Recipient
    from wch_common.events.whatsapp_content import Content


class MissingValue(ValueError):
    """A placeholder of the text has no value; the message names it."""


def content(message: Content, *, reply_to: str | None = None, own: Recipient | None = None) -> dict[str, Any]:
    """Return what a call holds beside its recipient and tag; raises MissingValue.

    `own` are the values of one recipient of a batch, which take the place of the message's.
    """
    body = {"context": {"message_id": reply_to}} if reply_to else {}
    match message:
        case Text():
            text = {"body": _filled(message.body, own.body or ()) if own else message.body}
            return body | {"type": "text", "text": text | {"preview_url": message.preview_url}}
        case Template():
            return body | {"type": "template", "template": _template(message, own)}
        case _:
            return body | {"type": "interactive", "interactive": _interactive(message, own)}


def fallback(template: Template, own: Recipient | None = None) -> dict[str, Any]:
    """Return the same of a template for a closed window: a recipient's own values take the place of those it has.

    By name or place, as those are the values of a text, of which the template may need fewer.
    """
    if own is None:
        return content(template)
    texts = _given(own.body or ())
    body = tuple(
        value.model_copy(update={"text": texts.get(value.name or str(place), value.text)})
        for place, value in enumerate(template.body, start=1)
    )
    header = own.header if type(own.header) is type(template.header) else template.header
    mine = {(button.index, button.kind): button for button in own.buttons or ()}
    buttons = tuple(mine.get((button.index, button.kind), button) for button in template.buttons)
    return content(template.model_copy(update={"header": header, "body": body, "buttons": buttons}))


def call(to: str, tag: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the whole body of a call; without the plus sign Meta would take a number for one of its own country."""
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": to,
        "biz_opaque_callback_data": tag,
        **content,
    }


def is_free_form(content: dict[str, Any]) -> bool:
    """Tell whether a content may be sent inside the 24-hour window only."""
    return bool(content["type"] != "template")


def _filled(text: str, values: Sequence[Parameter]) -> str:
    given = _given(values)

    def value(match: re.Match[str]) -> str:
        if match[1] not in given:
            raise MissingValue(f"there is no value for {{{{{match[1]}}}}}")
        return given[match[1]]

    return PLACEHOLDER.sub(value, text)


def _given(values: Sequence[Parameter]) -> dict[str, str]:
    return {value.name or str(place): value.text for place, value in enumerate(values, start=1)}


def _template(message: Template, own: Recipient | None) -> dict[str, Any]:
    header = own.header if own and own.header is not None else message.header
    values = own.body if own and own.body is not None else message.body
    buttons = own.buttons if own and own.buttons is not None else message.buttons
    components: list[dict[str, Any]] = []
    if header is not None:
        components.append({"type": "header", "parameters": [_parameter(header)]})
    if values:
        components.append({"type": "body", "parameters": [_parameter(value) for value in values]})
    components += [_button(button) for button in buttons]
    language = {"code": message.language, "policy": "deterministic"}
    found: dict[str, Any] = {"name": message.name, "language": language}
    return found | ({"components": components} if components else {})


def _parameter(value: Parameter | Media) -> dict[str, Any]:
    if isinstance(value, Media):
        source = {"link": value.link} if value.link is not None else {"id": value.id}
        return {"type": value.kind, value.kind: source}
    named = {"parameter_name": value.name} if value.name else {}
    return {"type": "text", **named, "text": value.text}


def _button(button: TemplateButton) -> dict[str, Any]:
    parameter: dict[str, Any]
    match button.kind:
        case "quick_reply":
            parameter = {"type": "payload", "payload": button.value}
        case "url":
            parameter = {"type": "text", "text": button.value}
        case "catalog":
            parameter = {"type": "action", "action": {"thumbnail_product_retailer_id": button.value}}
    return {"type": "button", "sub_type": button.kind, "index": str(button.index), "parameters": [parameter]}


def _interactive(message: Buttons | Choices | Product | ProductList, own: Recipient | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _KINDS[type(message)]}
    if header := getattr(message, "header", None):
        found["header"] = {"type": "text", "text": header}
    if message.body:
        found["body"] = {"text": _filled(message.body, own.body or ()) if own else message.body}
    if message.footer:
        found["footer"] = {"text": message.footer}
    return found | {"action": _action(message)}


_KINDS: dict[type, str] = {Buttons: "button", Choices: "list", Product: "product", ProductList: "product_list"}


def _action(message: Buttons | Choices | Product | ProductList) -> dict[str, Any]:
    match message:
        case Buttons():
            replies = [{"id": button.id, "title": button.title} for button in message.buttons]
            return {"buttons": [{"type": "reply", "reply": reply} for reply in replies]}
        case Choices():
            sections = [section.model_dump(mode="json", exclude_none=True) for section in message.sections]
            return {"button": message.button, "sections": sections}
        case Product():
            return {"catalog_id": message.catalog_id, "product_retailer_id": message.item_id}
        case ProductList():
            products = [
                {"title": one.title, "product_items": [{"product_retailer_id": item} for item in one.item_ids]}
                for one in message.sections
            ]
            return {"catalog_id": message.catalog_id, "sections": products}
