"""What a message may hold: what Meta documents is accepted, anything else is refused in our words before it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pywa.types import templates

from wch_common.contract.envelope import data_errors
from wch_common.contract.event import Part
from wch_common.events.whatsapp import BatchRecipient, BatchRequested, MessageRequested
from wch_common.events.whatsapp_content import (
    Buttons,
    Content,
    Currency,
    DateTime,
    Document,
    Header,
    Image,
    Location,
    Media,
    Parameter,
    ReplyButton,
    Template,
    TemplateButton,
    Text,
    Value,
)
from wch_simulators.graph_messages import RefusedMessage, check_message
from wch_whatsapp.bodies import MissingValue, UnfitValues, content, fallback

TO = "+15550100001"
TEMPLATE: dict[str, Any] = {"kind": "template", "name": "hello", "language": "en_US"}
PDF = "https://shop.example/invoices/7.pdf"
RELEASED = Path(__file__).parents[3] / "contracts" / "released" / "0.1.0"

# Meta, "Supported languages", 21 May 2026, and the code for Latin America.
LANGUAGES = [
    "af",
    "sq",
    "ar",
    "ar_EG",
    "ar_AE",
    "ar_LB",
    "ar_MA",
    "ar_QA",
    "az",
    "be_BY",
    "bn",
    "bn_IN",
    "bg",
    "ca",
    "zh_CN",
    "zh_HK",
    "zh_TW",
    "hr",
    "cs",
    "da",
    "prs_AF",
    "nl",
    "nl_BE",
    "en",
    "en_GB",
    "en_US",
    "en_AE",
    "en_AU",
    "en_CA",
    "en_GH",
    "en_IE",
    "en_IN",
    "en_JM",
    "en_MY",
    "en_NZ",
    "en_QA",
    "en_SG",
    "en_UG",
    "en_ZA",
    "et",
    "fil",
    "fi",
    "fr",
    "fr_BE",
    "fr_CA",
    "fr_CH",
    "fr_CI",
    "fr_MA",
    "ka",
    "de",
    "de_AT",
    "de_CH",
    "el",
    "gu",
    "ha",
    "he",
    "hi",
    "hu",
    "id",
    "ga",
    "it",
    "ja",
    "kn",
    "kk",
    "rw_RW",
    "ko",
    "ky_KG",
    "lo",
    "lv",
    "lt",
    "mk",
    "ms",
    "ml",
    "mr",
    "nb",
    "ps_AF",
    "fa",
    "pl",
    "pt_BR",
    "pt_PT",
    "pa",
    "ro",
    "ru",
    "sr",
    "si_LK",
    "sk",
    "sl",
    "es",
    "es_AR",
    "es_CL",
    "es_CO",
    "es_CR",
    "es_DO",
    "es_EC",
    "es_HN",
    "es_MX",
    "es_PA",
    "es_PE",
    "es_ES",
    "es_UY",
    "sw",
    "sv",
    "ta",
    "te",
    "th",
    "tr",
    "uk",
    "ur",
    "uz",
    "vi",
    "zu",
    "es_419",
]


def problems(message: object, **changes: Any) -> list[str]:
    """Return what a publisher learns about a message."""
    data = {"to": TO, "send_key": "k", "category": "service", "message": message} | changes
    try:
        MessageRequested.model_validate_json(orjson.dumps(data))
    except ValidationError as error:
        found = list(map(str, data_errors(error)))
        assert found
        for words in (
            "Input should",
            "Value error",
            "should have",
            "Field required",
            "union_tag",
            "pydantic",
            "String",
        ):
            assert not any(words in one for one in found), found
        return found
    return []


@pytest.mark.parametrize("code", LANGUAGES)
def test_languages_are_written_as_meta_writes_them(code: str) -> None:
    assert problems(TEMPLATE | {"language": code}) == []
    check_message({"type": "template", "template": content(Template(name="t", language=code))["template"]})


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("en-US", "must be written as Meta writes it: en_US"),
        ("EN_us", "must be written as Meta writes it: en_US"),
        ("es-419", "must be written as Meta writes it: es_419"),
        ("FIL", "must be written as Meta writes it: fil"),
        ("zh_Hans", "must be the code of a language as Meta writes it, like en_US, fil or es_419"),
        ("english", "must be the code of a language as Meta writes it, like en_US, fil or es_419"),
        ("", "must be the code of a language as Meta writes it, like en_US, fil or es_419"),
        (5, "must be a text"),
    ],
)
def test_a_language_of_another_form_is_refused_with_the_right_form(code: object, problem: str) -> None:
    assert problems(TEMPLATE | {"language": code}) == [f"data.message.template.language: {problem}"]


BOTH_SORTS = (
    "header and body: the values must all have a name or all have none, because a template has placeholders of one sort"
)
ANN, SEVEN = {"name": "first", "text": "Ann"}, {"text": "7"}
EUR = {"kind": "currency", "fallback_value": "1 €", "code": "EUR", "amount_1000": 1000}
HEADER = "kind must be image, video, document or location; leave it out for a text"
VALUE = "kind must be currency or date_time; leave it out for a text"
SOURCE = "give either link or id, not both or neither"
ADDRESS = "must be an http or https address, like https://shop.example/invoice.pdf"
IN_TEMPLATE: list[tuple[dict[str, Any], str]] = [
    ({"name": "My Template"}, ".name: must be the template's name at Meta, which consists of a-z, 0-9 and _"),
    ({"body": [ANN, SEVEN]}, f": {BOTH_SORTS}"),
    ({"header": SEVEN, "body": [ANN]}, f": {BOTH_SORTS}"),
    ({"body": [ANN, EUR]}, f": {BOTH_SORTS}"),
    ({"body": [ANN, EUR | {"name": "first"}]}, ": body: two values have the name first; give one value for each placeholder"),
    ({"body": [SEVEN | {"name": "First"}]}, ".body.0.name: must be the name of a placeholder: at most 64 characters of a-z, 0-9 and _"),
    ({"body": [EUR | {"code": "€"}]}, ".body.0.code: must be the code of a currency in ISO 4217, like EUR"),
    ({"body": [EUR | {"amount_1000": 1.5}]}, ".body.0.amount_1000: must be a whole number"),
    ({"body": [EUR | {"amount_1000": 2**31}]}, ".body.0.amount_1000: must be at most 2147483647"),
    ({"body": [EUR | {"fallback_value": ""}]}, ".body.0.fallback_value: must not be empty"),
    ({"body": [{"kind": "date_time", "text": "noon"}]}, ".body.0.fallback_value: is missing"),
    ({"body": [{"kind": "money", "text": "1"}]}, f".body.0: {VALUE}"),
    ({"body": [{"kind": "image", "link": PDF}]}, f".body.0: {VALUE}"),
    ({"body": ["Ann"]}, ".body.0: must be an object"),
    ({"header": EUR}, f".header: {HEADER}"),
    ({"header": {"kind": "audio", "link": PDF}}, f".header: {HEADER}"),
    ({"header": {"kind": "document"}}, f".header: {SOURCE}"),
    ({"header": {"kind": "document", "link": PDF, "id": "1"}}, f".header: {SOURCE}"),
    ({"header": {"kind": "document", "id": ""}}, f".header: {SOURCE}"),
    ({"header": {"kind": "document", "link": "ftp://shop.example/7.pdf"}}, f": header.link {ADDRESS}"),
    ({"header": {"kind": "image", "link": "shop.example/7.jpg"}}, f": header.link {ADDRESS}"),
    ({"header": {"kind": "image", "link": PDF, "filename": "a"}}, ".header: filename: WhatsApp shows none with an image; leave it out"),
    ({"header": {"kind": "image", "link": PDF, "caption": "a"}}, ".header: caption: WhatsApp shows none in the header of a template; write it into the body"),
    ({"header": {"kind": "document", "link": PDF, "filename": "a" * 256}}, ".header.filename: must have at most 255 characters"),
    ({"header": {"kind": "location", "latitude": 90.1, "longitude": 0}}, ".header.latitude: must be at most 90"),
    ({"header": {"kind": "location", "latitude": "90", "longitude": 0}}, ".header.latitude: must be a number"),
    ({"header": {"kind": "location", "latitude": 1}}, ".header.longitude: is missing"),
    ({"buttons": [{"index": 0, "kind": "phone", "value": "1"}]}, ".buttons.0.kind: must be 'quick_reply', 'url', 'catalog', 'copy_code' or 'flow'"),
    ({"buttons": [{"index": 10, "kind": "url", "value": "1"}]}, ".buttons.0.index: must be at most 9"),
    ({"buttons": [{"index": 0, "kind": "url"}]}, ".buttons.0: value is missing: give the end of the address"),
    ({"buttons": [{"index": 0, "kind": "url", "value": "a" * 2001}]}, ".buttons.0.value: must have at most 2000 characters"),
    ({"buttons": [{"index": 0, "kind": "quick_reply", "value": "a" * 257}]}, ".buttons.0: value: the payload of the reply must have at most 256 characters"),
    ({"buttons": [{"index": 0, "kind": "copy_code", "value": "A" * 21}]}, ".buttons.0: value: the coupon code must have at most 20 characters"),
    ({"buttons": [{"index": 0, "kind": "copy_code", "value": "A-1"}]}, ".buttons.0: value: the coupon code must consist of A-Z, a-z and 0-9 only"),
    ({"buttons": [{"index": 0, "kind": "flow", "value": "t"}]}, ".buttons.0: value: a flow takes flow_token and flow_action_data instead"),
    ({"buttons": [{"index": 0, "kind": "flow", "flow_action_data": {}}]}, ".buttons.0.flow_action_data: must not be empty"),
    ({"buttons": [{"index": 0, "kind": "url", "value": "a", "flow_token": "t"}]}, ".buttons.0: flow_token and flow_action_data are for a button of the kind flow; leave them out"),
    ({"buttons": [{"index": 1, "kind": "url", "value": "a"}, {"index": 1, "kind": "flow"}]}, ": buttons: two have the index 1; give each button its place in the template, from 0"),
    ({"buttons": [{"index": 0, "kind": "catalog"}, {"index": 1, "kind": "catalog"}]}, ": buttons: a template has at most one button of the kind catalog"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), IN_TEMPLATE, ids=[problem for _, problem in IN_TEMPLATE])
def test_a_template_that_meta_would_refuse_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert problems(TEMPLATE | changes) == [f"data.message.template{problem}"]
    text = {"kind": "text", "body": "Hello"}
    assert problems(text, fallback=TEMPLATE | changes) == [f"data.fallback{problem}"]


FREE: list[tuple[object, str]] = [
    ({"kind": "audio", "link": PDF, "caption": "Listen"}, ".audio: caption: WhatsApp shows none with an audio file; leave it out"),
    ({"kind": "audio", "link": PDF, "filename": "a.ogg"}, ".audio: filename: WhatsApp shows none with an audio file; leave it out"),
    ({"kind": "image", "id": "1", "filename": "a.jpg"}, ".image: filename: WhatsApp shows none with an image; leave it out"),
    ({"kind": "video", "id": "1", "filename": "a.mp4"}, ".video: filename: WhatsApp shows none with a video; leave it out"),
    ({"kind": "document", "id": "1", "caption": "a" * 1025}, ".document.caption: must have at most 1024 characters"),
    ({"kind": "document", "link": "file:///etc/passwd"}, f".document: link {ADDRESS}"),
    ({"kind": "document", "link": "https:// shop.example"}, f".document: link {ADDRESS}"),
    ({"kind": "document"}, f".document: {SOURCE}"),
    ({"kind": "document", "id": "1", "caption": "{{Name}}"}, ".document.caption: {{Name}} is not a valid placeholder: use a number like {{1}} or a name of a-z, 0-9 and _"),
    ({"kind": "sticker", "id": "1"}, ": its field 'kind' must be one of 'text', 'template', 'image', 'video', 'document', 'audio', 'buttons', 'list', 'product', 'product_list'"),
    ({"id": "1"}, ": must have the field 'kind'"),
    ("Hello", ": must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "problem"), FREE, ids=[problem for _, problem in FREE])
def test_a_file_that_whatsapp_would_refuse_or_show_in_part_is_refused(message: object, problem: str) -> None:
    assert problems(message) == [f"data.message{problem}"]


def test_a_caption_of_a_single_message_must_not_have_placeholders() -> None:
    (problem,) = problems({"kind": "image", "id": "1", "caption": "For {{name}}"})
    assert problem.startswith("data: message.caption has the placeholder {{name}}, but only the recipients of a batch")


# Meta's documented requests, with values of our own. Numbers of a place are texts there, and a button's index may be a number.
DOCUMENTED: list[tuple[Content, dict[str, Any]]] = [
    (
        Template(
            name="order_delivery_update",
            language="en_US",
            header=Location(kind="location", latitude=37.5, longitude=-122.25, name="Shop", address="1 Street"),
            body=(Parameter(name="customer_name", text="Ann"),),
        ),
        {
            "name": "order_delivery_update",
            "language": {"policy": "deterministic", "code": "en_US"},
            "components": [
                {
                    "type": "header",
                    "parameters": [
                        {
                            "type": "location",
                            "location": {
                                "latitude": "37.5",
                                "longitude": "-122.25",
                                "name": "Shop",
                                "address": "1 Street",
                            },
                        }
                    ],
                },
                {"type": "body", "parameters": [{"type": "text", "parameter_name": "customer_name", "text": "Ann"}]},
            ],
        },
    ),
    (
        Template(
            name="order_invoice",
            language="en",
            header=Media(kind="document", id="1013859600285441", filename="Invoice 7.pdf"),
            body=(
                Parameter(text="Ann"),
                Currency(kind="currency", fallback_value="$100.99", code="USD", amount_1000=100990),
                DateTime(kind="date_time", fallback_value="February 25, 1977"),
            ),
            buttons=(TemplateButton(index=0, kind="quick_reply", value="paid"),),
        ),
        {
            "name": "order_invoice",
            "language": {"policy": "deterministic", "code": "en"},
            "components": [
                {
                    "type": "header",
                    "parameters": [
                        {"type": "document", "document": {"id": "1013859600285441", "filename": "Invoice 7.pdf"}}
                    ],
                },
                {
                    "type": "body",
                    "parameters": [
                        {"type": "text", "text": "Ann"},
                        {
                            "type": "currency",
                            "currency": {"fallback_value": "$100.99", "code": "USD", "amount_1000": 100990},
                        },
                        {"type": "date_time", "date_time": {"fallback_value": "February 25, 1977"}},
                    ],
                },
                {
                    "type": "button",
                    "sub_type": "quick_reply",
                    "index": "0",
                    "parameters": [{"type": "payload", "payload": "paid"}],
                },
            ],
        },
    ),
    (
        Template(
            name="marketing",
            language="en_US",
            buttons=(
                TemplateButton(index=0, kind="catalog", value="171"),
                TemplateButton(index=1, kind="copy_code", value="25OFF"),
                TemplateButton(index=2, kind="flow", flow_token="t", flow_action_data={"stars": [1, 2]}),
                TemplateButton(index=3, kind="url", value="c/7"),
            ),
        ),
        {
            "name": "marketing",
            "language": {"policy": "deterministic", "code": "en_US"},
            "components": [
                {
                    "type": "button",
                    "sub_type": "CATALOG",
                    "index": 0,
                    "parameters": [{"type": "action", "action": {"thumbnail_product_retailer_id": "171"}}],
                },
                {
                    "type": "button",
                    "sub_type": "COPY_CODE",
                    "index": 1,
                    "parameters": [{"type": "coupon_code", "coupon_code": "25OFF"}],
                },
                {
                    "type": "button",
                    "sub_type": "flow",
                    "index": "2",
                    "parameters": [
                        {"type": "action", "action": {"flow_token": "t", "flow_action_data": {"stars": [1, 2]}}}
                    ],
                },
                {"type": "button", "sub_type": "url", "index": "3", "parameters": [{"type": "text", "text": "c/7"}]},
            ],
        },
    ),
    (
        Document(kind="document", id="1013859600285441", caption="Your invoice", filename="Invoice 7.pdf"),
        {"id": "1013859600285441", "caption": "Your invoice", "filename": "Invoice 7.pdf"},
    ),
    (Image(kind="image", link="https://shop.example/a.png"), {"link": "https://shop.example/a.png"}),
]


@pytest.mark.parametrize(("message", "documented"), DOCUMENTED, ids=lambda one: getattr(one, "name", ""))
def test_a_body_is_that_of_metas_documentation(message: Content, documented: dict[str, Any]) -> None:
    body = content(message)
    assert body.keys() == {"type", message.kind}
    assert as_texts(body[message.kind]) == as_texts(documented)
    check_message(body)
    check_message({"type": message.kind, message.kind: documented})


def as_texts(value: Any) -> Any:
    """Return JSON with a place's numbers and an index as texts, and the kind of a button in lower case."""
    if isinstance(value, list):
        return [as_texts(one) for one in value]
    if not isinstance(value, dict):
        return value
    own = {key: str(one) for key, one in value.items() if key in ("latitude", "longitude", "index")}
    own |= {key: one.lower() for key, one in value.items() if key == "sub_type"}
    return {key: as_texts(one) for key, one in value.items()} | own


# -- random templates

NAMES = st.from_regex("[a-z0-9_]{1,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20).filter(
    lambda text: text.strip() != ""
)
WORDS = st.from_regex("[A-Za-z0-9äß€, ]{0,10}[A-Za-z0-9]", fullmatch=True).map(lambda text: " ".join(text.split()))
AMOUNTS = st.integers(-(2**31), 2**31 - 1)
CODES = st.sampled_from(["EUR", "USD"])
Texts = st.SearchStrategy[str]


def made(part: type[Part], **fields: Any) -> st.SearchStrategy[Any]:
    strategies = {name: one if isinstance(one, st.SearchStrategy) else st.just(one) for name, one in fields.items()}
    return st.builds(part, **strategies)


def values(name: st.SearchStrategy[str | None], texts: Texts) -> st.SearchStrategy[Value]:
    return st.one_of(
        made(Parameter, text=texts, name=name),
        made(Currency, kind="currency", fallback_value=texts, code=CODES, amount_1000=AMOUNTS, name=name),
        made(DateTime, kind="date_time", fallback_value=texts, name=name),
    )


def headers(name: st.SearchStrategy[str | None], texts: Texts) -> st.SearchStrategy[Header | None]:
    place = {"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)}
    return st.one_of(
        st.none(),
        made(Parameter, text=texts, name=name),
        made(Media, kind=st.sampled_from(["image", "video"]), link=PDF),
        made(Media, kind="document", id="1013859600285441", filename=st.none() | texts),
        made(Location, kind="location", **place, name=st.none() | texts, address=st.none() | texts),
    )


def button_values(texts: Texts) -> st.SearchStrategy[dict[str, Any]]:
    flow = {"flow_token": texts, "flow_action_data": st.dictionaries(NAMES, texts, min_size=1)}
    return st.one_of(
        st.fixed_dictionaries({"kind": st.just("quick_reply"), "value": texts}),
        st.fixed_dictionaries({"kind": st.just("url"), "value": texts.map(lambda text: "".join(text.split()))}),
        st.fixed_dictionaries({"kind": st.just("flow")}, optional=flow),
    )


def single_button_values(texts: Texts) -> st.SearchStrategy[dict[str, Any]]:
    coupon = st.from_regex("[A-Za-z0-9]{1,20}", fullmatch=True)
    return st.one_of(
        st.fixed_dictionaries({"kind": st.just("catalog"), "value": st.none() | texts}),
        st.fixed_dictionaries({"kind": st.just("copy_code"), "value": coupon}),
    )


@st.composite
def valid_templates(draw: st.DrawFn, texts: Texts) -> Template:
    names: st.SearchStrategy[str | None] = NAMES if draw(st.booleans()) else st.none()
    body = draw(st.lists(values(names, texts), max_size=4, unique_by=lambda one: one.name or id(one)))
    single = st.lists(single_button_values(texts), max_size=2, unique_by=lambda one: one["kind"])
    buttons = draw(st.lists(button_values(texts), max_size=4)) + draw(single)
    return Template(
        name=draw(NAMES),
        language=draw(st.sampled_from(LANGUAGES)),
        header=draw(headers(names, texts)),
        body=tuple(body),
        buttons=tuple(TemplateButton(index=place, **one) for place, one in enumerate(buttons)),
    )


@settings(max_examples=150)
@given(valid_templates(TEXTS))
def test_meta_accepts_every_valid_template_and_it_survives_the_event(template: Template) -> None:
    check_message(content(template))
    event = MessageRequested(to=TO, send_key="k", category="marketing", message=template)
    assert MessageRequested.model_validate_json(event.model_dump_json()).message == template


@settings(max_examples=150)
@given(valid_templates(WORDS))
def test_the_components_are_those_of_pywa(template: Template) -> None:
    """All but files, which pywa uploads or reads first; test_bodies compares those."""
    ours = content(template)["template"].get("components", [])
    without_files = [one for one in ours if not (one["type"] == "header" and isinstance(template.header, Media))]
    assert without_files == list(components_of_pywa(template))


def components_of_pywa(template: Template) -> Iterator[dict[str, Any]]:
    """Yield what pywa sends for a template, with what it leaves out or adds against Meta's documentation put right."""
    header, body = template.header, template.body
    if isinstance(header, Parameter):
        yield lower(templates.HeaderText.params(*by_place([header]), **by_name([header])).to_dict())
    elif isinstance(header, Location):
        # It demands a name and an address, which are optional.
        place = {"lat": header.latitude, "lon": header.longitude, "name": header.name, "address": header.address}
        yield without_none(lower(templates.HeaderLocation.params(**place).to_dict()))
    if body:
        found = lower(templates.BodyText.params(*by_place(body), **by_name(body)).to_dict())
        # It leaves out the name of an amount and of a time.
        names = [{"parameter_name": value.name} if value.name else {} for value in body]
        yield found | {"parameters": [one | own for one, own in zip(found["parameters"], names, strict=True)]}
    for button in template.buttons:
        yield lower(button_of_pywa(button).to_dict())


def by_place(values: Sequence[Value]) -> list[Any]:
    return [value_of_pywa(one) for one in values if one.name is None]


def by_name(values: Sequence[Value]) -> dict[str, Any]:
    return {one.name: value_of_pywa(one) for one in values if one.name is not None}


def value_of_pywa(value: Value) -> Any:
    match value:
        case Currency():
            return templates.Currency(
                fallback_value=value.fallback_value, code=value.code, amount_1000=value.amount_1000
            )
        case DateTime():
            return templates.DateTime(fallback_value=value.fallback_value)
    return value.text


def button_of_pywa(button: TemplateButton) -> Any:
    index, value = button.index, button.value or ""
    match button.kind:
        case "quick_reply":
            return templates.QuickReplyButton.params(index=index, callback_data=value)
        case "url":
            return templates.URLButton.params(index=index, url_variable=value)
        case "copy_code":
            return templates.CopyCodeButton.params(index=index, coupon_code=value)
        case "catalog":
            return templates.CatalogButton.params(index=index, thumbnail_product_sku=button.value)
    # It sends null for what is not given, where Meta's default is "unused".
    token, data = button.flow_token or "unused", button.flow_action_data
    flow = templates.FlowButton.params(index=index, flow_token=token, flow_action_data=data)
    return SimpleNamespace(to_dict=lambda: without_none(flow.to_dict()))


def lower(component: dict[str, Any]) -> dict[str, Any]:
    """Return a component with its types in lower case and its index as text, as Meta's guides write them."""
    named = {key: str(component[key]).lower() for key in ("type", "sub_type", "index") if key in component}
    if "parameters" not in component:
        return component | named
    return component | named | {"parameters": [one | {"type": one["type"].lower()} for one in component["parameters"]]}


def without_none(value: Any) -> Any:
    if isinstance(value, list):
        return [without_none(one) for one in value]
    return (
        {key: without_none(one) for key, one in value.items() if one is not None} if isinstance(value, dict) else value
    )


def test_pywa_differs_from_metas_documentation_as_it_did() -> None:
    """Where these fail, pywa has changed, and `components_of_pywa` must no longer put it right."""
    amount = templates.Currency(fallback_value="1 €", code="EUR", amount_1000=1000)
    (value,) = templates.BodyText.params(total=amount).to_dict()["parameters"]
    assert "parameter_name" not in value
    (value,) = templates.FlowButton.params(index=0).to_dict()["parameters"]
    assert value["action"] == {"flow_token": None, "flow_action_data": None}
    assert "es_419" not in set(templates.TemplateLanguage)


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ({"language": {"code": "en-US"}}, 132001),
        ({"components": [{"type": "footer", "parameters": [{"type": "text", "text": "a"}]}]}, 100),
        ({"components": [{"type": "body", "parameters": []}]}, 131008),
        ({"components": [{"type": "body", "parameters": [{"type": "image", "image": {"link": PDF}}]}]}, 132012),
        ({"components": [{"type": "header", "parameters": [{"type": "image", "image": {"id": "1", "caption": "a"}}]}]}, 100),
        ({"components": [{"type": "header", "parameters": [{"type": "currency", "currency": {}}]}]}, 132012),
        ({"components": [{"type": "body", "parameters": [{"type": "text", "text": "a\nb"}]}]}, 132018),
        (
            {"components": [{"type": "body", "parameters": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "parameter_name": "b"}]}]},
            100,
        ),
        ({"components": [{"type": "button", "sub_type": "flow", "index": "0"}]}, 131008),
        ({"components": [{"type": "button", "sub_type": "phone", "index": "0"}]}, 100),
        ({"components": [{"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "payload", "payload": "a"}]}]}, 132012),
        ({"components": [{"type": "button", "sub_type": "copy_code", "index": "0", "parameters": [{"type": "coupon_code", "coupon_code": "A-1"}]}]}, 131009),
    ],
)  # fmt: skip
def test_the_simulator_refuses_a_template_that_meta_refuses(template: dict[str, Any], code: int) -> None:
    with pytest.raises(RefusedMessage) as refused:
        check_message({"type": "template", "template": {"name": "t", "language": {"code": "en"}} | template})
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"type": "picture", "picture": {}}, 100),
        ({"type": "image"}, 131008),
        ({"type": "audio", "audio": {"id": "1", "caption": "a"}}, 100),
        ({"type": "image", "image": {"id": "1", "filename": "a"}}, 100),
        ({"type": "document", "document": {"link": "shop.example"}}, 100),
        ({"type": "document", "document": {"link": PDF, "id": "1"}}, 131008),
        ({"type": "video", "video": {"id": "1", "caption": "a" * 1025}}, 131009),
    ],
)
def test_the_simulator_refuses_a_file_that_meta_refuses(body: dict[str, Any], code: int) -> None:
    with pytest.raises(RefusedMessage) as refused:
        check_message(body)
    assert refused.value.code == code


# -- a recipient's own values


def own(**fields: Any) -> BatchRecipient:
    return BatchRecipient(to=TO, send_key="k", **fields)


def test_own_values_of_every_kind_replace_those_of_the_template() -> None:
    message = Template(
        name="t",
        language="en_US",
        header=Location(kind="location", latitude=1, longitude=2),
        body=(Parameter(text="all"),),
        buttons=(TemplateButton(index=0, kind="copy_code", value="ALL"),),
    )
    mine = own(
        header=Location(kind="location", latitude=3, longitude=4, name="Mine"),
        body=(Currency(kind="currency", fallback_value="1 €", code="EUR", amount_1000=1000),),
        buttons=(TemplateButton(index=0, kind="flow", flow_token="mine"),),
    )
    header, body, button = content(message, own=mine)["template"]["components"]
    assert header["parameters"][0]["location"] == {"latitude": 3, "longitude": 4, "name": "Mine"}
    assert body["parameters"][0]["currency"]["fallback_value"] == "1 €"
    assert button["parameters"][0]["action"] == {"flow_token": "mine"}
    other = content(message, own=own(header=Media(kind="document", link=PDF, filename="mine.pdf")))
    assert other["template"]["components"][0]["parameters"][0]["document"] == {"link": PDF, "filename": "mine.pdf"}


def test_own_values_that_no_template_takes_fail_the_recipient_in_our_words() -> None:
    named = Template(name="t", language="en_US", header=Parameter(text="7", name="order"))
    cases: list[tuple[Content, BatchRecipient, str]] = [
        (named, own(body=(Parameter(text="Ann"),)), "the values must all have a name or all have none"),
        (
            named,
            own(header=Media(kind="image", link="shop.example/a.jpg")),
            "header.link must be an http or https address",
        ),
        (named, own(buttons=(TemplateButton(index=0, kind="catalog"),) * 2), "two have the index 0"),
        (Image(kind="image", id="1"), own(header=Media(kind="image", link="a.jpg")), "header.link must be an http or"),
    ]
    for message, mine, problem in cases:
        with pytest.raises(UnfitValues, match=problem) as refused:
            content(message, own=mine)
        assert refused.value.reason == "value_refused"
    with pytest.raises(MissingValue) as missing:
        content(Image(kind="image", id="1", caption="For {{name}}"), own=own())
    assert missing.value.reason == "value_missing"


def test_a_recipients_own_file_and_values_replace_those_of_a_file_message() -> None:
    message = Document(
        kind="document", link="https://shop.example/all.pdf", filename="all.pdf", caption="For {{name}}: {{2}}"
    )
    body = (
        Parameter(text="Ann", name="name"),
        Currency(kind="currency", fallback_value="1 €", code="EUR", amount_1000=1000),
    )
    mine = content(message, own=own(header=Media(kind="document", link=PDF, filename="mine.pdf"), body=body))
    assert mine["document"] == {"link": PDF, "filename": "mine.pdf", "caption": "For Ann: 1 €"}
    other = content(message, own=own(header=Media(kind="image", link=PDF), body=body))
    assert other["document"]["link"] == "https://shop.example/all.pdf", "the picture is for the fallback"
    assert content(message)["document"]["caption"] == "For {{name}}: {{2}}"


def test_a_fallback_takes_a_header_of_its_kind_and_values_of_any_kind() -> None:
    template = Template(
        name="t",
        language="en_US",
        header=Parameter(text="all", name="title"),
        body=(Parameter(text="1 €", name="total"), Parameter(text="soon", name="day")),
    )
    mine = own(
        header=Parameter(text="mine"),
        body=(Currency(kind="currency", fallback_value="2 €", code="EUR", amount_1000=2000, name="total"),),
    )
    header, body = fallback(template, mine)["template"]["components"]
    assert header["parameters"] == [{"type": "text", "parameter_name": "title", "text": "mine"}]
    assert [one["type"] for one in body["parameters"]] == ["currency", "text"]
    assert body["parameters"][0]["parameter_name"] == "total"
    picture = template.model_copy(update={"header": Media(kind="image", id="1")})
    kept = fallback(picture, own(header=Media(kind="document", id="2")))["template"]["components"][0]
    assert kept["parameters"] == [{"type": "image", "image": {"id": "1"}}], "a document is no picture"


def test_a_source_that_is_empty_is_not_sent() -> None:
    assert content(Document(kind="document", link=PDF, id=""))["document"] == {"link": PDF}
    assert content(Document(kind="document", link="", id="1"))["document"] == {"id": "1"}
    template = Template(name="t", language="en_US", header=Media(kind="image", link="", id="1"))
    (header,) = content(template)["template"]["components"]
    assert header["parameters"] == [{"type": "image", "image": {"id": "1"}}]


# -- events of the release before


def test_messages_of_the_release_before_are_read() -> None:
    """All but one that Meta refuses: its header has no name beside named values (code 100, Parameter name is missing)."""
    refused = []
    for model in (MessageRequested, BatchRequested):
        for data in json.loads((RELEASED / f"{model.TYPE}.json").read_text())["examples"]:
            try:
                model.model_validate_json(json.dumps(data))
            except ValidationError as error:
                refused += [(data["send_key"], str(one)) for one in data_errors(error)]
    assert {key for key, _ in refused} == {"order-1042-shipped"}
    assert {problem for _, problem in refused} == {f"data.message.template: {BOTH_SORTS}"}


def test_values_for_a_text_may_mix_names_and_places() -> None:
    text = Text(kind="text", body="{{name}}, order {{2}}")
    mixed = own(body=(Parameter(text="Ann", name="name"), Parameter(text="7")))
    assert content(text, own=mixed)["text"]["body"] == "Ann, order 7"
    buttons = Buttons(kind="buttons", body="{{1}}", buttons=(ReplyButton(id="y", title="Yes"),))
    filled = content(buttons, own=own(body=(DateTime(kind="date_time", fallback_value="noon"),)))
    assert filled["interactive"]["body"]["text"] == "noon"
