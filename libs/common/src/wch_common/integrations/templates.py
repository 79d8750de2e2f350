"""Message templates as Meta keeps them: which values one takes, whether given values fit, and what the recipient sees. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from wch_common.events.whatsapp_content import Parameter
from wch_common.events.whatsapp_text import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wch_common.events.whatsapp_content import Header, Template, TemplateButton, Value

# Meta refuses line breaks, tabs and more than four spaces in a row in a value of a template (132018).
_ILLEGAL_SPACE = re.compile(r"\s*[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]\s*| {5,}")
APPROVED: Final = "APPROVED"
"""The only status in which a template can be sent."""
NAMED: Final = "NAMED"

Takes: TypeAlias = Literal["never", "always", "optionally", "if it has a placeholder"]


@dataclass(frozen=True)
class ValueKind:
    """A part of a template that may take a value: the kind of the value in events, and when it is needed."""

    kind: str
    takes: Takes


# A kind that is not listed here is not checked, because Meta adds kinds.
HEADERS: Final[Mapping[str, ValueKind]] = {
    "TEXT": ValueKind("text", "if it has a placeholder"),
    "IMAGE": ValueKind("image", "always"),
    "VIDEO": ValueKind("video", "always"),
    "DOCUMENT": ValueKind("document", "always"),
    "LOCATION": ValueKind("location", "always"),
}
BUTTONS: Final[Mapping[str, ValueKind]] = {
    "URL": ValueKind("url", "if it has a placeholder"),
    "OTP": ValueKind("url", "always"),
    "COPY_CODE": ValueKind("copy_code", "always"),
    "MPM": ValueKind("mpm", "always"),
    "QUICK_REPLY": ValueKind("quick_reply", "optionally"),
    "CATALOG": ValueKind("catalog", "optionally"),
    "FLOW": ValueKind("flow", "optionally"),
    "VOICE_CALL": ValueKind("voice_call", "optionally"),
    "PHONE_NUMBER": ValueKind("phone_number", "never"),
    "REQUEST_CONTACT_INFO": ValueKind("request_contact_info", "never"),
}
# Components whose values are a field of their own in the event, by its name.
PARTS: Final[Mapping[str, str]] = {"CAROUSEL": "carousel", "LIMITED_TIME_OFFER": "limited_time_offer"}


class EmptyValue(ValueError):
    """A value of a template is empty, which Meta refuses."""


class OwnValues(Protocol):
    """The values of one recipient, which replace those of the message."""

    @property
    def header(self) -> Header | None: ...

    @property
    def body(self) -> tuple[Value, ...] | None: ...

    @property
    def buttons(self) -> tuple[TemplateButton, ...] | None: ...


@dataclass(frozen=True)
class MetaTemplate:
    """A template of a WhatsApp business account in one language."""

    name: str
    language: str
    status: str
    category: str
    parameter_format: str
    components: list[dict[str, Any]]

    def component(self, type_: str) -> dict[str, Any]:
        """Return the component of a type, or an empty one."""
        return next((one for one in self.components if str(one.get("type")).upper() == type_), {})

    @property
    def buttons(self) -> list[dict[str, Any]]:
        """Its buttons, in order."""
        return list(self.component("BUTTONS").get("buttons") or ())

    @property
    def is_named(self) -> bool:
        """Whether its placeholders have names instead of numbers."""
        if self.parameter_format:
            return self.parameter_format.upper() == NAMED
        return any(not name.isdigit() for name in _placeholders(str(self.component("BODY").get("text", ""))))


# -- values


def legal_text(text: str) -> str:
    """Return a value as Meta accepts it: a space for line breaks, tabs and long runs of spaces; raises EmptyValue."""
    legal = _spaced(text)
    if not legal:
        raise EmptyValue("a value of the template is empty")
    return legal


def _spaced(text: str) -> str:
    return _ILLEGAL_SPACE.sub(" ", text).strip()


def is_changed(text: str) -> bool:
    """Whether a value has line breaks, tabs or long runs of spaces, which become one space."""
    return _ILLEGAL_SPACE.search(text) is not None


def with_own_values(template: Template, own: OwnValues | None) -> Template:
    """Return a template with a recipient's own values in place of those of the message."""
    if own is None:
        return template
    names = ("header", "body", "buttons")
    given = {name: value for name in names if (value := getattr(own, name)) is not None}
    return template.model_copy(update=given)


def fallback_with_own_values(template: Template, own: OwnValues | None) -> Template:
    """Return a fallback template with a recipient's own values for the text, by name or position, where it has such a value."""
    if own is None:
        return template
    values = {value.name or str(place): value for place, value in enumerate(own.body or (), start=1)}
    body = tuple(
        values[place].model_copy(update={"name": value.name})
        if (place := value.name or str(number)) in values
        else value
        for number, value in enumerate(template.body, start=1)
    )
    header = _header_of_same_kind(template.header, own.header)
    own_buttons = {(button.index, button.kind): button for button in own.buttons or ()}
    buttons = tuple(own_buttons.get((button.index, button.kind), button) for button in template.buttons)
    return template.model_copy(update={"header": header, "body": body, "buttons": buttons})


def _header_of_same_kind(header: Header | None, own: Header | None) -> Header | None:
    if type(own) is not type(header) or getattr(own, "kind", None) != getattr(header, "kind", None):
        return header
    return own.model_copy(update={"name": header.name}) if isinstance(header, Parameter) and own else own


def empty_values(template: Template) -> list[str]:
    """Return which of the given values are empty, like `body 2`."""
    return [place for place, text in texts(template) if not _spaced(text)]


def texts(values: OwnValues) -> Iterator[tuple[str, str]]:
    """Yield every text of a template or of a recipient that fills a placeholder, with its place, like `body 2`."""
    if isinstance(values.header, Parameter):
        yield "header", values.header.text
    for number, value in enumerate(values.body or (), start=1):
        yield f"body {value.name or number}", value.text
    for button in values.buttons or ():
        if isinstance(text := getattr(button, "value", None), str):
            yield f"button {button.index}", text


# -- whether values fit


def misfits(template: Template, meta: MetaTemplate) -> list[str]:
    """Return why the values of a message do not fit a template, each as a sentence about the template without its subject."""
    return [*_header_misfits(template, meta), *_body_misfits(template, meta), *_button_misfits(template, meta)] + [
        f"needs values for its {part['type'].lower()}, which this version cannot send"
        for part in meta.components
        if (name := PARTS.get(str(part.get("type")).upper())) and not getattr(template, name, None)
    ]


def _header_misfits(template: Template, meta: MetaTemplate) -> Iterator[str]:
    header, component = template.header, meta.component("HEADER")
    given = "" if header is None else str(getattr(header, "kind", "text"))
    format_ = str(component.get("format", "TEXT")).upper()
    slot = HEADERS.get(format_)
    if slot is None:
        return
    needed = _needs(slot, str(component.get("text", "")))
    if needed and given != slot.kind:
        yield f"needs {_a(slot.kind)} in its header" + (f", not {_a(given)}" if given else "")
    elif given and not needed:
        yield "has no placeholder in its header" if component else "has no header"
    elif isinstance(header, Parameter):
        names = _placeholders(str(component.get("text", "")))
        yield from _text_misfits("header", (header,), names, is_named=meta.is_named)


def _body_misfits(template: Template, meta: MetaTemplate) -> Iterator[str]:
    names = _placeholders(str(meta.component("BODY").get("text", "")))
    yield from _text_misfits("body", template.body, names, is_named=meta.is_named)


def _text_misfits(part: str, values: Sequence[Value], names: Sequence[str], *, is_named: bool) -> Iterator[str]:
    given = [value.name for value in values]
    if len(given) != len(names) and not (is_named and any(given)):
        yield f"has {_counted(len(names), 'placeholder')} in its {part}, for which {_counted(len(given), 'value')} {'is' if len(given) == 1 else 'are'} given"
    elif not is_named and any(given):
        yield f"has numbers as placeholders in its {part}, not names like {next(filter(None, given))}"
    elif is_named and (missing := [name for name in names if name not in given]):
        yield f"needs a value for {', '.join(missing)} in its {part}"
    elif is_named and (surplus := [name or "without a name" for name in given if name not in names]):
        yield f"has no placeholder {', '.join(surplus)} in its {part}"
    elif is_named and len(set(given)) < len(given):
        yield f"takes one value for each placeholder in its {part}"


def _button_misfits(template: Template, meta: MetaTemplate) -> Iterator[str]:
    given = {button.index: button for button in template.buttons}
    buttons = meta.buttons
    for index in sorted(set(given) - set(range(len(buttons)))):
        yield f"has no button {index}"
    for index, button in enumerate(buttons):
        slot = BUTTONS.get(str(button.get("type")).upper())
        if slot is None:
            continue
        named, value = f"button {index} ({button.get('text', '')})", given.get(index)
        needed = _needs(slot, str(button.get("url", "")))
        if value is None and needed:
            yield f"needs a value for its {named}, of the kind {slot.kind}"
        elif value is not None and not needed and slot.takes != "optionally":
            yield f"takes no value for its {named}"
        elif value is not None and value.kind != slot.kind:
            yield f"takes a value of the kind {slot.kind} for its {named}, not {value.kind}"


def _needs(slot: ValueKind, text: str) -> bool:
    return slot.takes == "always" or (slot.takes == "if it has a placeholder" and bool(_placeholders(text)))


def _placeholders(text: str) -> list[str]:
    """Return the placeholders of a text, each once: numbers in their order, names as they appear."""
    found = list(dict.fromkeys(PLACEHOLDER.findall(text)))
    return sorted(found, key=int) if all(one.isdigit() for one in found) else found


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _a(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


# -- what the recipient sees


@dataclass(frozen=True)
class Preview:
    """A message as its recipient sees it; media and buttons in words."""

    body: str
    header: str = ""
    footer: str = ""
    buttons: tuple[str, ...] = field(default=())


def preview(template: Template, meta: MetaTemplate) -> Preview:
    """Return what a recipient sees of a template with its values; values that do not fit stay placeholders."""
    header = meta.component("HEADER")
    own = (template.header,) if isinstance(template.header, Parameter) else ()
    shown = filled(str(header.get("text", "")), _as_sent(own))
    if header and not header.get("text"):
        shown = f"[{str(header.get('format', '')).lower()}{_source(template.header)}]"
    values = {button.index: button for button in template.buttons}
    return Preview(
        filled(str(meta.component("BODY").get("text", "")), _as_sent(template.body)),
        shown,
        str(meta.component("FOOTER").get("text", "")),
        tuple(_button(button, values.get(index)) for index, button in enumerate(meta.buttons)),
    )


def filled(text: str, values: Sequence[Value]) -> str:
    """Return a text with its values in place of its placeholders; a placeholder without a value stays."""
    by_name = {value.name or str(place): value.text for place, value in enumerate(values, start=1)}
    return PLACEHOLDER.sub(lambda match: by_name.get(match[1], match[0]), text)


def unfilled(text: str, values: Sequence[Value]) -> list[str]:
    """Return the placeholders of a text for which there is no value."""
    names = {value.name or str(place) for place, value in enumerate(values, start=1)}
    return [name for name in _placeholders(text) if name not in names]


def _as_sent(values: Sequence[Value]) -> list[Parameter]:
    return [Parameter(name=value.name, text=_spaced(value.text)) for value in values]


def _source(header: object) -> str:
    source = getattr(header, "link", None) or getattr(header, "id", None)
    return f" {source}" if source else ""


def _button(button: Mapping[str, Any], value: TemplateButton | None) -> str:
    text, url = str(button.get("text", "")), str(button.get("url", ""))
    given = _spaced(getattr(value, "value", None) or "")
    if url:
        return f"{text} → {PLACEHOLDER.sub(lambda match: given or match[0], url)}"
    return f"{text} → {given}" if given and str(button.get("type")).upper() != "QUICK_REPLY" else text
