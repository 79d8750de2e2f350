"""The comparison of values with a template agrees with what Meta's simulator accepts, which is written independently."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wch_common.events.whatsapp_content import Media, Parameter, Template, TemplateButton
from wch_common.integrations.templates import MetaTemplate, empty_values, misfits
from wch_simulators import templates as simulated
from wch_simulators.graph_error import GraphError
from wch_whatsapp.bodies import content

TEXTS = ["", "Hi", "Hi {{1}}", "Hi {{1}} of {{2}}", "Hi {{name}}", "Hi {{name}} of {{town}}"]
BUTTONS: list[dict[str, Any]] = [
    {"type": "QUICK_REPLY", "text": "Stop"},
    {"type": "URL", "text": "Shop", "url": "https://shop.example"},
    {"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}"},
    {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100001"},
    {"type": "CATALOG", "text": "See"},
]
HEADERS = [
    {},
    *({"format": one} for one in ("IMAGE", "VIDEO", "DOCUMENT")),
    *({"format": "TEXT", "text": one} for one in TEXTS[1:3]),
]

media = st.builds(Media, kind=st.sampled_from(["image", "video", "document"]), link=st.just("https://shop.example/a"))
pressed = st.builds(
    TemplateButton,
    index=st.integers(0, 3),
    kind=st.sampled_from(["quick_reply", "url", "catalog"]),
    value=st.just("x"),
)


@st.composite
def messages(draw: st.DrawFn) -> Template:
    """Draw a message, whose values all have a name or all have none."""
    of_sort: tuple[list[str | None], ...] = ([None, None, None], ["name", "town", "age"])
    names: list[str | None] = draw(st.sampled_from(of_sort))
    count = draw(st.integers(0, 3))
    text = Parameter(text="x", name=draw(st.permutations(names))[0])
    return Template(
        name="hello",
        language="en_US",
        header=draw(st.none() | st.just(text) | media),
        body=tuple(Parameter(text="x", name=name) for name in draw(st.permutations(names))[:count]),
        buttons=tuple(draw(st.lists(pressed, max_size=2, unique_by=(lambda one: one.index, lambda one: one.kind)))),
    )


@st.composite
def metas(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a template of Meta's."""
    text, header = draw(st.sampled_from(TEXTS)), draw(st.sampled_from(HEADERS))
    buttons = draw(st.lists(st.sampled_from(BUTTONS), max_size=3))
    components = [{"type": "BODY", "text": text}, {"type": "BUTTONS", "buttons": buttons}]
    named = "NAMED" if "{{n" in text else "POSITIONAL"
    components += (
        [{"type": "HEADER", **header}] if header and not (named == "NAMED" and "{{" in header.get("text", "")) else []
    )
    return {
        "name": "hello",
        "language": "en_US",
        "status": "APPROVED",
        "parameter_format": named,
        "components": components,
    }


@given(messages(), metas())
@settings(max_examples=600)
def test_values_fit_exactly_if_meta_accepts_the_message(message: Template, meta: dict[str, Any]) -> None:
    template = MetaTemplate(**{"category": "MARKETING", **meta})
    assert not empty_values(message)
    try:
        simulated.check([meta], content(message)["template"])
        accepted = True
    except GraphError:
        accepted = False
    if any(one.name for one in message.body) and meta["parameter_format"] == "POSITIONAL":
        # Meta's documents do not say whether it ignores names here; the comparison does not rely on it.
        assert misfits(message, template)
    else:
        assert (misfits(message, template) == []) == accepted
