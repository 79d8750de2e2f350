"""Bodies of calls: the same as those of `pywa`, a third-party client, for the same message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from pywa import WhatsApp, types
from pywa.errors import WhatsAppError
from pywa.types import templates

from wch_common.events.whatsapp import BatchRecipient, MessageRequested
from wch_common.events.whatsapp_content import (
    Audio,
    Buttons,
    Choices,
    Content,
    Currency,
    DateTime,
    Document,
    Image,
    ListRow,
    ListSection,
    Location,
    Media,
    Parameter,
    Product,
    ProductList,
    ProductSection,
    ReplyButton,
    Template,
    TemplateButton,
    Text,
    Video,
)
from wch_simulators.graph import GraphSimulator
from wch_simulators.running import InThread
from wch_whatsapp.bodies import MissingValue, UnfitValues, call_body, content, fallback, is_free_form

TO, TAG = "+15550100001", "wch1:tag:1"
Send = Callable[[WhatsApp], object]
EN = templates.TemplateLanguage.ENGLISH_US
PDF = "https://shop.example/invoices/7.pdf"


@pytest.fixture(scope="module")
def pywa() -> Iterator[Callable[[Send], dict[str, Any]]]:
    """Return a function that sends with pywa and returns the body that arrived."""
    simulator = GraphSimulator()
    with InThread(simulator) as there:
        client = WhatsApp(phone_id="2002", token=simulator.token)
        client.api._session.base_url = f"{there.url}/v23.0"

        def sent(send: Send) -> dict[str, Any]:
            send(client)
            body: dict[str, Any] = simulator.sent[-1]["body"]
            return body

        yield sent
        client.api._session.close()


CASES: list[tuple[Content, Send]] = [
    (
        Text(kind="text", body="Hi", preview_url=True),
        lambda wa: wa.send_message(TO, "Hi", preview_url=True, tracker=TAG),
    ),
    (
        Template(
            name="order",
            language="en_US",
            header=Parameter(text="Sale"),
            body=(Parameter(text="Ann"), Parameter(text="7")),
            buttons=(
                TemplateButton(index=0, kind="quick_reply", value="yes"),
                TemplateButton(index=1, kind="url", value="cart/1"),
            ),
        ),
        lambda wa: wa.send_template(
            TO,
            "order",
            EN,
            [
                templates.HeaderText.params("Sale"),
                templates.BodyText.params("Ann", "7"),
                templates.QuickReplyButton.params(callback_data="yes", index=0),
                templates.URLButton.params(url_variable="cart/1", index=1),
            ],
            tracker=TAG,
        ),
    ),
    (
        Template(
            name="named",
            language="en_US",
            header=Media(kind="image", link="https://shop.example/a.jpg"),
            body=(Parameter(text="Ann", name="first_name"),),
            buttons=(TemplateButton(index=0, kind="catalog", value="wc_1"),),
        ),
        lambda wa: wa.send_template(
            TO,
            "named",
            EN,
            [
                templates.HeaderImage.params(image="https://shop.example/a.jpg"),
                templates.BodyText.params(first_name="Ann"),
                templates.CatalogButton.params(thumbnail_product_sku="wc_1", index=0),
            ],
            tracker=TAG,
        ),
    ),
    (
        Buttons(
            kind="buttons",
            body="Shall we?",
            header="Your cart",
            footer="Bye",
            buttons=(ReplyButton(id="y", title="Yes"), ReplyButton(id="n", title="No")),
        ),
        lambda wa: wa.send_message(
            TO,
            "Shall we?",
            header="Your cart",
            footer="Bye",
            buttons=[types.Button("Yes", "y"), types.Button("No", "n")],
            tracker=TAG,
        ),
    ),
    (
        Choices(
            kind="list",
            body="Pick",
            button="Open",
            sections=(
                ListSection(
                    title="Sizes",
                    rows=(ListRow(id="s", title="Small", description="S"), ListRow(id="l", title="Large")),
                ),
            ),
        ),
        lambda wa: wa.send_message(
            TO,
            "Pick",
            buttons=types.SectionList(
                "Open", [types.Section("Sizes", [types.SectionRow("Small", "s", "S"), types.SectionRow("Large", "l")])]
            ),
            tracker=TAG,
        ),
    ),
    (
        Product(kind="product", catalog_id="1001", item_id="wc_1", body="Look", footer="Us"),
        lambda wa: wa.send_product(TO, "1001", "wc_1", body="Look", footer="Us", tracker=TAG),
    ),
    (
        ProductList(
            kind="product_list",
            header="New",
            body="Look",
            catalog_id="1001",
            sections=(ProductSection(title="Tees", item_ids=("wc_1", "wc_2")),),
        ),
        lambda wa: wa.send_products(
            TO, "1001", [types.ProductsSection("Tees", ["wc_1", "wc_2"])], "New", "Look", tracker=TAG
        ),
    ),
    (
        Template(
            name="invoice",
            language="es_AR",
            header=Media(kind="document", link=PDF, filename="Invoice 7.pdf"),
            body=(
                Parameter(text="Ann"),
                Currency(kind="currency", fallback_value="54,70 €", code="EUR", amount_1000=54700),
                DateTime(kind="date_time", fallback_value="15 de febrero"),
            ),
            buttons=(
                TemplateButton(index=0, kind="copy_code", value="SPRING20"),
                TemplateButton(index=1, kind="flow", flow_token="t", flow_action_data={"a": [1, {"b": None}]}),
            ),
        ),
        lambda wa: wa.send_template(
            TO,
            "invoice",
            templates.TemplateLanguage.SPANISH_ARG,
            [
                templates.HeaderDocument.params(document=PDF, filename="Invoice 7.pdf"),
                templates.BodyText.params(
                    "Ann",
                    templates.Currency(fallback_value="54,70 €", code="EUR", amount_1000=54700),
                    templates.DateTime(fallback_value="15 de febrero"),
                ),
                templates.CopyCodeButton.params(coupon_code="SPRING20", index=0),
                templates.FlowButton.params(index=1, flow_token="t", flow_action_data={"a": [1, {"b": None}]}),
            ],
            tracker=TAG,
        ),
    ),
    (
        Template(
            name="pickup",
            language="fil",
            header=Location(kind="location", latitude=37.44216, longitude=-122, name="Shop", address="1 Street"),
            body=(Parameter(text="Ann", name="first_name"), Parameter(text="7", name="order")),
            buttons=(TemplateButton(index=9, kind="catalog"),),
        ),
        lambda wa: wa.send_template(
            TO,
            "pickup",
            templates.TemplateLanguage.FILIPINO,
            [
                templates.HeaderLocation.params(lat=37.44216, lon=-122, name="Shop", address="1 Street"),
                templates.BodyText.params(first_name="Ann", order="7"),
                templates.CatalogButton.params(index=9),
            ],
            tracker=TAG,
        ),
    ),
    (
        Template(
            name="video",
            language="zh_CN",
            header=Media(kind="video", id="1013859600285441"),
            body=(DateTime(kind="date_time", fallback_value="noon"),),
        ),
        lambda wa: wa.send_template(
            TO,
            "video",
            templates.TemplateLanguage.CHINESE_CHN,
            [
                templates.HeaderVideo.params(video="1013859600285441"),
                templates.BodyText.params(templates.DateTime(fallback_value="noon")),
            ],
            tracker=TAG,
        ),
    ),
    (
        Template(name="named_header", language="en_US", header=Parameter(text="7", name="order")),
        lambda wa: wa.send_template(TO, "named_header", EN, [templates.HeaderText.params(order="7")], tracker=TAG),
    ),
    (
        Image(kind="image", link="https://shop.example/a.jpg", caption="Look"),
        lambda wa: wa.send_image(TO, "https://shop.example/a.jpg", caption="Look", tracker=TAG),
    ),
    (
        Video(kind="video", id="1013859600285441"),
        lambda wa: wa.send_video(TO, "1013859600285441", tracker=TAG),
    ),
    (
        Document(kind="document", link=PDF, caption="Your invoice", filename="Invoice 7.pdf"),
        lambda wa: wa.send_document(TO, PDF, filename="Invoice 7.pdf", caption="Your invoice", tracker=TAG),
    ),
    (
        Document(kind="document", link=PDF),
        # Without a name it would send the end of the link as one.
        lambda wa: wa.send_document(TO, PDF, filename=None, tracker=TAG),
    ),
    (
        Audio(kind="audio", link="https://shop.example/a.ogg"),
        lambda wa: wa.send_audio(TO, "https://shop.example/a.ogg", tracker=TAG),
    ),
]


@pytest.mark.parametrize(("message", "send"), CASES, ids=lambda case: getattr(case, "kind", ""))
def test_a_body_equals_that_of_pywa(message: Content, send: Send, pywa: Callable[[Send], dict[str, Any]]) -> None:
    assert plain(call_body(TO, TAG, content(message))) == plain(pywa(send))


def test_a_reply_names_the_message_it_answers(pywa: Callable[[Send], dict[str, Any]]) -> None:
    theirs = pywa(lambda wa: wa.send_message(TO, "Hi", reply_to_message_id="wamid.1", tracker=TAG))
    assert plain(call_body(TO, TAG, content(Text(kind="text", body="Hi"), reply_to="wamid.1"))) == plain(theirs)


def test_pywa_reads_what_the_simulator_refuses(pywa: Callable[[Send], dict[str, Any]]) -> None:
    with pytest.raises(WhatsAppError, match="Invalid component type footer") as refused:
        pywa(lambda wa: wa.send_template(TO, "order", EN, [{"type": "footer", "parameters": []}]))
    assert refused.value.code == 100


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without the fields that Meta's schema requires and Meta's guides leave out."""
    body = dict(body)
    assert body.pop("recipient_type", "individual") == "individual"
    if "text" in body:
        body["text"] = {"preview_url": False} | body["text"]
    if "template" in body:
        template = dict(body["template"])
        template["language"] = {"code": template["language"]["code"]}
        template["components"] = [_component(one) for one in template.get("components", [])]
        body["template"] = template
    return body


def _component(component: dict[str, Any]) -> dict[str, Any]:
    """Lower the case of type names: Meta reads any case, and its guides use lower case."""
    small: dict[str, Any] = {
        key: str(component[key]).lower() for key in ("type", "sub_type", "index") if key in component
    }
    if "parameters" not in component:
        return {**component, **small}
    parameters = [{**one, "type": one["type"].lower()} for one in component["parameters"]]
    return {**component, **small, "parameters": parameters}


def test_the_values_of_a_recipient_replace_those_of_the_message() -> None:
    message = Template(name="x", language="en_US", body=(Parameter(text="all"),), header=Parameter(text="head"))
    own = BatchRecipient(to=TO, send_key="k", body=(Parameter(text="mine"),))
    components = content(message, own=own)["template"]["components"]
    assert [one["parameters"][0]["text"] for one in components] == ["head", "mine"]


def test_a_fallback_takes_only_the_values_that_it_has_placeholders_for() -> None:
    named = Template(
        name="x", language="en_US", body=(Parameter(text="you", name="name"), Parameter(text="soon", name="day"))
    )
    placed = Template(
        name="x",
        language="en_US",
        header=Parameter(text="head"),
        body=(Parameter(text="you"),),
        buttons=(
            TemplateButton(index=0, kind="url", value="all"),
            TemplateButton(index=1, kind="quick_reply", value="no"),
        ),
    )
    own = BatchRecipient(
        to=TO,
        send_key="k",
        header=Media(kind="image", link="https://shop.example/a.jpg"),
        body=(Parameter(text="Ann", name="name"), Parameter(text="7", name="order")),
        buttons=(TemplateButton(index=0, kind="url", value="mine"),),
    )
    assert values(fallback(named, own)) == ["Ann", "soon"]
    assert values(fallback(placed, own)) == ["head", "you", "mine", "no"], "the template takes no picture and no name"
    first = own.model_copy(
        update={"body": (Parameter(text="Ann"), Parameter(text="7")), "header": Parameter(text="mine")}
    )
    assert values(fallback(placed, first)) == ["mine", "Ann", "mine", "no"]
    bare = Template(name="x", language="en_US")
    assert fallback(bare, own) == content(bare)
    assert fallback(placed) == content(placed)


def values(template: dict[str, Any]) -> list[str]:
    """Return the values of a template's components, in their order."""
    parameters = [one for component in template["template"]["components"] for one in component["parameters"]]
    return [one.get("text") or one.get("payload") for one in parameters]


@pytest.mark.parametrize("text", ["Hi {{Name}}", "Hi {{ first-name }}", "Hi {{customer.name}}"])
def test_an_invalid_placeholder_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a valid placeholder"):
        Text(kind="text", body=text)
    with pytest.raises(ValidationError, match="is not a valid placeholder"):
        Buttons(kind="buttons", body=text, buttons=(ReplyButton(id="y", title="Yes"),))


def test_a_single_message_must_not_have_placeholders() -> None:
    with pytest.raises(ValidationError, match="only the recipients of a batch have values"):
        MessageRequested(to=TO, send_key="k", category="service", message=Text(kind="text", body="Hi {{name}}"))
    assert MessageRequested(to=TO, send_key="k", category="service", message=Text(kind="text", body='{{"a": 1}}'))


def test_the_body_of_an_interactive_message_is_filled_like_a_text() -> None:
    message = Buttons(kind="buttons", body="Hello {{name}}", buttons=(ReplyButton(id="y", title="Yes"),))
    own = BatchRecipient(to=TO, send_key="k", body=(Parameter(text="Ann", name="name"),))
    assert content(message, own=own)["interactive"]["body"]["text"] == "Hello Ann"
    assert content(message)["interactive"]["body"]["text"] == "Hello {{name}}"


def test_placeholders_of_a_text_are_filled_and_a_missing_value_is_named() -> None:
    text = Text(kind="text", body="Hello {{name}}, order {{2}}")
    own = BatchRecipient(to=TO, send_key="k", body=(Parameter(text="Ann", name="name"), Parameter(text="7")))
    assert content(text, own=own)["text"]["body"] == "Hello Ann, order 7"
    with pytest.raises(MissingValue, match=r"\{\{name\}\}"):
        content(text, own=BatchRecipient(to=TO, send_key="k"))
    assert content(text)["text"]["body"] == text.body


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("Main Street 1\nBerlin", "Main Street 1 Berlin"),
        ("a \r\n\t b", "a b"),
        ("a\u2028b", "a b"),
        ("a     b", "a b"),
        ("a    b", "a    b"),
        (" a ", "a"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_a_templates_value_is_sent_in_a_form_that_meta_accepts(value: str, sent: str) -> None:
    template = Template(name="t", language="en_US", header=Parameter(text=value), body=(Parameter(text=value),))
    components = content(template)["template"]["components"]
    assert [one["parameters"][0]["text"] for one in components] == [sent, sent]
    assert content(Text(kind="text", body=value))["text"]["body"] == value, "a text may have lines"


@pytest.mark.parametrize("value", ["", " ", "\n", "\t \n"])
def test_an_empty_value_is_found_before_the_call(value: str) -> None:
    with pytest.raises(MissingValue, match="a value of the template is empty"):
        content(Template(name="t", language="en_US", body=(Parameter(text=value),)))


@pytest.mark.parametrize(
    ("kind", "value", "sent"),
    [
        ("url", " cart/1\n", "cart/1"),
        ("quick_reply", "a\nb     c", "a b c"),
        ("catalog", "\twc 1 ", "wc 1"),
    ],
)
def test_a_buttons_value_is_sent_in_a_form_that_meta_accepts(kind: Any, value: str, sent: str) -> None:
    template = Template(name="t", language="en_US", buttons=(TemplateButton(index=0, kind=kind, value=value),))
    (parameter,) = content(template)["template"]["components"][0]["parameters"]
    assert sent in (parameter.get("payload"), parameter.get("text"), *parameter.get("action", {}).values())


URL_SPACE = "buttons: the value of button 0 has white space in it, which no address has; write a space as %20"
EMPTY_BUTTON = "buttons: the value of button 0 is empty"


@pytest.mark.parametrize(
    ("button", "problem"),
    [
        ({"kind": "url", "value": "a\nb"}, URL_SPACE),
        ({"kind": "url", "value": "a b"}, URL_SPACE),
        ({"kind": "url", "value": "a\u00a0b"}, URL_SPACE),
        ({"kind": "url", "value": "   "}, EMPTY_BUTTON),
        ({"kind": "quick_reply", "value": "\n"}, EMPTY_BUTTON),
        ({"kind": "catalog", "value": "\t"}, EMPTY_BUTTON),
        ({"kind": "flow", "flow_token": " "}, EMPTY_BUTTON),
    ],
)
def test_a_buttons_value_that_meta_refuses_is_refused(button: dict[str, Any], problem: str) -> None:
    wrong = TemplateButton(index=0, **button)
    with pytest.raises(ValidationError, match=problem):
        Template(name="t", language="en_US", buttons=(wrong,))
    own = BatchRecipient(to="+15550100001", send_key="k", buttons=(wrong,))
    with pytest.raises(UnfitValues, match=problem) as refused:
        content(Template(name="t", language="en_US"), own=own)
    assert refused.value.reason == "value_refused", "one recipient fails, not their batch"


def test_only_templates_may_be_sent_outside_the_window() -> None:
    for message, _ in CASES:
        assert is_free_form(content(message)) is not isinstance(message, Template)
