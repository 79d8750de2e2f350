"""Templates approved by Meta, with values for their placeholders, headers and buttons, as Meta accepts them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from wch_common.contract.event import Part
from wch_common.contract.personal import IMPERSONAL, PERSONAL
from wch_common.events.whatsapp_media import Media, refuse_unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator


def _formed(pattern: str, problem: str) -> BeforeValidator:
    """Refuse a text of another form in words; the field's own pattern is for the published schema."""

    def check(value: object) -> object:
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise ValueError(problem)
        return value

    return BeforeValidator(check)


_NAME: Final = "[a-z0-9_]{1,64}"
ValueName = Annotated[
    str,
    IMPERSONAL,
    Field(pattern=f"^{_NAME}$"),
    _formed(_NAME, "must be the name of a placeholder: at most 64 characters of a-z, 0-9 and _"),
]
_Shown = Annotated[
    str,
    PERSONAL,
    Field(min_length=1, max_length=1024, description="What is shown where WhatsApp does not format the value itself."),
]


class Parameter(Part):
    """A value for a placeholder, by position or by name."""

    text: Annotated[str, PERSONAL, Field(max_length=1024)]
    name: ValueName | None = None


class Currency(Part):
    """An amount of money for a placeholder of the body, which WhatsApp formats for the recipient."""

    kind: Literal["currency"]
    fallback_value: _Shown
    code: Annotated[
        str,
        IMPERSONAL,
        Field(pattern="^[A-Z]{3}$", description="The currency's code in ISO 4217, like EUR."),
        _formed("[A-Z]{3}", "must be the code of a currency in ISO 4217, like EUR"),
    ]
    amount_1000: Annotated[
        int, PERSONAL, Field(ge=-(2**31), le=2**31 - 1, description="The amount times 1000: 19990 for 19.99.")
    ]
    name: ValueName | None = None

    @property
    def text(self) -> str:
        """The amount as it is written in a text."""
        return self.fallback_value


class DateTime(Part):
    """A date or time for a placeholder of the body, which Meta shows as it is given."""

    kind: Literal["date_time"]
    fallback_value: _Shown
    name: ValueName | None = None

    @property
    def text(self) -> str:
        """The time as it is written in a text."""
        return self.fallback_value


class Location(Part):
    """A place on a map, in the header of a template."""

    kind: Literal["location"]
    latitude: Annotated[float, PERSONAL, Field(ge=-90, le=90, description="In decimal degrees.")]
    longitude: Annotated[float, PERSONAL, Field(ge=-180, le=180, description="In decimal degrees.")]
    name: Annotated[str, PERSONAL, Field(min_length=1, max_length=1024)] | None = None
    address: Annotated[str, PERSONAL, Field(min_length=1, max_length=1024)] | None = None


def _kind(value: object) -> str:
    """Return the name of the alternative that a value is of; a text has no kind."""
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return f"({'media' if kind in ('image', 'video', 'document') else kind or 'text'})"


_Text = Annotated[Parameter, Tag("(text)")]
Value: TypeAlias = Annotated[
    _Text | Annotated[Currency, Tag("(currency)")] | Annotated[DateTime, Tag("(date_time)")],
    Discriminator(
        _kind,
        custom_error_type="kind_of_value",
        custom_error_message="kind must be currency or date_time; leave it out for a text",
    ),
]
"""A value for a placeholder of a body."""
Header: TypeAlias = Annotated[
    _Text | Annotated[Media, Tag("(media)")] | Annotated[Location, Tag("(location)")],
    Discriminator(
        _kind,
        custom_error_type="kind_of_header",
        custom_error_message="kind must be image, video, document or location; leave it out for a text",
    ),
]
"""What the header of a template shows."""

_VALUES: Final = {
    "quick_reply": ("the payload of the reply", 256),
    "url": ("the end of the address", 2000),
    "catalog": ("the item of the catalog whose picture is shown", 256),
    "copy_code": ("the coupon code", 20),
}


class TemplateButton(Part):
    """A value for a button of the template, by the button's place among all buttons."""

    index: Annotated[int, Field(ge=0, le=9)]
    kind: Literal["quick_reply", "url", "catalog", "copy_code", "flow"]
    value: Annotated[
        str | None,
        PERSONAL,
        Field(
            min_length=1,
            max_length=2000,
            description="The payload of a quick reply (256 characters), the end of a URL (2,000), a coupon code of A-Z, "
            "a-z and 0-9 (20), or the catalog's item whose picture is shown, by default its first.",
        ),
    ] = None
    flow_token: Annotated[
        str | None,
        PERSONAL,
        Field(min_length=1, max_length=2000, description="What the flow is identified by when it answers."),
    ] = None
    flow_action_data: Annotated[
        dict[str, Any] | None, PERSONAL, Field(min_length=1, description="Data for the flow's first screen.")
    ] = None

    @model_validator(mode="after")
    def _has_what_its_kind_takes(self) -> Self:
        if self.kind == "flow":
            if self.value is not None:
                raise ValueError("value: a flow takes flow_token and flow_action_data instead")
            return self
        if self.flow_token is not None or self.flow_action_data is not None:
            raise ValueError("flow_token and flow_action_data are for a button of the kind flow; leave them out")
        meaning, most = _VALUES[self.kind]
        if self.value is None and self.kind != "catalog":
            raise ValueError(f"value is missing: give {meaning}")
        if len(self.value or "") > most:
            raise ValueError(f"value: {meaning} must have at most {most} characters")
        if self.kind == "copy_code" and not re.fullmatch("[A-Za-z0-9]+", self.value or ""):
            raise ValueError("value: the coupon code must consist of A-Z, a-z and 0-9 only")
        return self


# Two forms, because the release before knew the first only, and a changed pattern would break its publishers.
_Code = (
    Annotated[str, Field(pattern="^[a-z]{2,3}(_[A-Z]{2})?$")] | Annotated[str, Field(pattern="^[a-z]{2,3}_[0-9]{3}$")]
)
_CODE: Final = re.compile("[a-z]{2,3}(_([A-Z]{2}|[0-9]{3}))?")
_SIMILAR: Final = re.compile("([A-Za-z]{2,3})(?:[-_ ]([A-Za-z]{2}|[0-9]{3}))?")


def _written_as_meta_does(code: object) -> object:
    if not isinstance(code, str):
        raise ValueError("must be a text")  # noqa: TRY004 - pydantic reports a ValueError with the others
    if _CODE.fullmatch(code):
        return code
    if similar := _SIMILAR.fullmatch(code):
        right = "_".join(filter(None, (similar[1].lower(), (similar[2] or "").upper())))
        raise ValueError(f"must be written as Meta writes it: {right}")
    raise ValueError("must be the code of a language as Meta writes it, like en_US, fil or es_419")


Language = Annotated[
    _Code,
    IMPERSONAL,
    BeforeValidator(_written_as_meta_does),
    Field(description="As Meta writes it, like en_US, fil or es_419."),
]


class Template(Part):
    """A template approved by Meta, with values for its placeholders."""

    kind: Literal["template"] = "template"
    name: Annotated[
        str,
        IMPERSONAL,
        Field(pattern="^[a-z0-9_]{1,512}$"),
        _formed("[a-z0-9_]{1,512}", "must be the template's name at Meta, which consists of a-z, 0-9 and _"),
    ]
    language: Language
    header: Header | None = None
    body: Annotated[
        tuple[Value, ...],
        Field(description="Values for the placeholders, in their order, or all by name."),
    ] = ()
    buttons: tuple[TemplateButton, ...] = ()

    @model_validator(mode="after")
    def _has_values_that_fit_together(self) -> Self:
        refuse_unfit(self.header, self.body, self.buttons)
        return self


def refuse_unfit(header: Header | None, body: Sequence[Value], buttons: Sequence[TemplateButton]) -> None:
    """Raise ValueError if no template can take these values together."""
    if isinstance(header, Media):
        refuse_unreachable(header, "header.link")
    values = [*([header] if isinstance(header, Parameter) else []), *body]
    names = [value.name for value in values]
    if None in names and any(names):
        raise ValueError(
            "header and body: the values must all have a name or all have none, because a template has placeholders of one sort"
        )
    if twice := _twice(value.name for value in body if value.name):
        raise ValueError(f"body: two values have the name {twice}; give one value for each placeholder")
    if (place := _twice(button.index for button in buttons)) is not None:
        raise ValueError(f"buttons: two have the index {place}; give each button its place in the template, from 0")
    for button in buttons:
        if problem := button_problem(button):
            raise ValueError(f"buttons: the value of button {button.index} {problem}")
    for kind in ("copy_code", "catalog"):
        if sum(button.kind == kind for button in buttons) > 1:
            raise ValueError(f"buttons: a template has at most one button of the kind {kind}")


def button_problem(button: TemplateButton) -> str:
    """Return why Meta refuses the value of a button, as a sentence without its subject; empty if it does not."""
    texts = [text.strip() for text in (button.value, button.flow_token) if text is not None]
    if "" in texts:
        return "is empty"
    if button.kind == "url" and any(re.search(r"\s", text) for text in texts):
        return "has white space in it, which no address has; write a space as %20"
    return ""


def _twice(values: Iterator[Any]) -> Any:  # noqa: ANN401 - of any type
    return next((value for value, count in Counter(values).items() if count > 1), None)
