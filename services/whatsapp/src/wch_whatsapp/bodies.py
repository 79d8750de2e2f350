"""Bodies of Cloud API calls, from the contents of the contract; the client `pywa` sends the same. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wch_common.events.whatsapp_content import (
    Audio,
    Buttons,
    Choices,
    Currency,
    DateTime,
    Document,
    Image,
    Location,
    Media,
    Product,
    ProductList,
    Template,
    TemplateButton,
    Text,
    Video,
)
from wch_common.events.whatsapp_media import refuse_unreachable
from wch_common.events.whatsapp_template import refuse_unfit
from wch_common.events.whatsapp_text import PLACEHOLDER
from wch_common.integrations.recipients import is_number
from wch_common.integrations.templates import EmptyValue, fallback_with_own_values, legal_text, with_own_values

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from wch_common.events.whatsapp import BatchRecipient
    from wch_common.events.whatsapp_content import Content, Header, Value


class UnfitValues(ValueError):
    """The values do not make a message that Meta accepts; `reason` is that of the failure, the message says what to change."""

    reason = "value_refused"


class MissingValue(UnfitValues):
    """A placeholder of the text has no value; the error names it."""

    reason = "value_missing"


def content(message: Content, *, reply_to: str | None = None, own: BatchRecipient | None = None) -> dict[str, Any]:
    """Return the content of a call, without recipient and tag; raises UnfitValues.

    The values of `own`, a recipient of a batch, replace the values of the message.
    """
    body = {"context": {"message_id": reply_to}} if reply_to else {}
    match message:
        case Text():
            text = {"body": _filled(message.body, own.body or ()) if own else message.body}
            return body | {"type": "text", "text": text | {"preview_url": message.preview_url}}
        case Template():
            return body | {"type": "template", "template": _template(message, own)}
        case Image() | Video() | Document() | Audio():
            return body | {"type": message.kind, message.kind: _file_message(message, own)}
        case _:
            return body | {"type": "interactive", "interactive": _interactive(message, own)}


def fallback(template: Template, own: BatchRecipient | None = None) -> dict[str, Any]:
    """Return the content of a call with the fallback template; the recipient's own values replace the template's.

    They match by name or position, because they are values for the text, and the template may need only some of them.
    """
    return content(fallback_with_own_values(template, own))


def call_body(to: str, tag: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a call to a number, with its plus sign, or to an id of Meta's.

    Without the plus sign, Meta would read a number of the sender's country; in `to`, it would read the digits of an id.
    """
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to" if is_number(to) else "recipient": to,
        "biz_opaque_callback_data": tag,
        **content,
    }


def is_free_form(content: dict[str, Any]) -> bool:
    """Whether a content may be sent only inside the 24-hour window."""
    return bool(content["type"] != "template")


def _filled(text: str, values: Sequence[Value]) -> str:
    by_placeholder = _by_placeholder(values)

    def value(match: re.Match[str]) -> str:
        if match[1] not in by_placeholder:
            raise MissingValue(f"no value for {{{{{match[1]}}}}}")
        return by_placeholder[match[1]].text

    return PLACEHOLDER.sub(value, text)


def _by_placeholder(values: Sequence[Value]) -> dict[str, Value]:
    return {value.name or str(place): value for place, value in enumerate(values, start=1)}


def _template(message: Template, own: BatchRecipient | None) -> dict[str, Any]:
    filled = with_own_values(message, own)
    try:
        refuse_unfit(filled.header, filled.body, filled.buttons)
    except ValueError as error:
        raise UnfitValues(str(error)) from None
    components: list[dict[str, Any]] = []
    if filled.header is not None:
        components.append({"type": "header", "parameters": [_header(filled.header)]})
    if filled.body:
        components.append({"type": "body", "parameters": [_parameter(value) for value in filled.body]})
    components += [_button(button) for button in filled.buttons]
    language = {"code": message.language, "policy": "deterministic"}
    found: dict[str, Any] = {"name": message.name, "language": language}
    return found | ({"components": components} if components else {})


def _header(value: Header) -> dict[str, Any]:
    match value:
        case Media():
            return {"type": value.kind, value.kind: _file(value)}
        case Location():
            return {"type": "location", "location": value.model_dump(exclude={"kind"}, exclude_none=True)}
        case _:
            return _parameter(value)


def _file(file: Media | Image | Video | Document | Audio) -> dict[str, Any]:
    return {name: value for name in ("link", "id", "filename") if (value := getattr(file, name, None))}


def _file_message(message: Image | Video | Document | Audio, own: BatchRecipient | None) -> dict[str, Any]:
    """Return a file with its caption; a recipient's own file of this kind replaces the message's."""
    file = own.header if own and isinstance(own.header, Media) and own.header.kind == message.kind else message
    try:
        refuse_unreachable(file, "header.link")
    except ValueError as error:
        raise UnfitValues(str(error)) from None
    caption = getattr(message, "caption", None)
    if caption is None:
        return _file(file)
    return _file(file) | {"caption": _filled(caption, own.body or ()) if own else caption}


def _parameter(value: Value) -> dict[str, Any]:
    named = {"parameter_name": value.name} if value.name else {}
    text = _legal(value.text)
    match value:
        case Currency():
            amount = {"fallback_value": text, "code": value.code, "amount_1000": value.amount_1000}
            return {"type": "currency", **named, "currency": amount}
        case DateTime():
            return {"type": "date_time", **named, "date_time": {"fallback_value": text}}
        case _:
            return {"type": "text", **named, "text": text}


def _legal(text: str) -> str:
    """Return a template's value as Meta accepts it; raises MissingValue."""
    try:
        return legal_text(text)
    except EmptyValue as error:
        raise MissingValue(str(error)) from None


def _button(button: TemplateButton) -> dict[str, Any]:
    parameter: dict[str, Any] = {}
    value = None if button.value is None else _legal(button.value)
    match button.kind:
        case "quick_reply":
            parameter = {"type": "payload", "payload": value}
        case "url":
            parameter = {"type": "text", "text": value}
        case "copy_code":
            parameter = {"type": "coupon_code", "coupon_code": value}
        case "catalog" if value is not None:
            parameter = {"type": "action", "action": {"thumbnail_product_retailer_id": value}}
        case "flow":
            parameter = {"type": "action", "action": _flow(button)}
    found = {"type": "button", "sub_type": button.kind, "index": str(button.index)}
    return found | ({"parameters": [parameter]} if parameter else {})


def _flow(button: TemplateButton) -> dict[str, Any]:
    # Meta's default, written out because Meta refuses the button of a flow without a parameter.
    token = {"flow_token": button.flow_token or "unused"}
    return token | ({"flow_action_data": button.flow_action_data} if button.flow_action_data is not None else {})


def _interactive(message: Buttons | Choices | Product | ProductList, own: BatchRecipient | None) -> dict[str, Any]:
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
