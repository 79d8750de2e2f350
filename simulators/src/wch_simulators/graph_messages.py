"""What Meta checks of the call for a message before it accepts it, as its documentation and its answers say."""

from __future__ import annotations

import re
from typing import Any, NoReturn

_TYPES = frozenset(
    {"text", "template", "image", "video", "document", "audio", "sticker", "location", "contacts", "reaction", "interactive"}
)  # fmt: skip
_KEYS = {
    "image": {"link", "id", "caption"},
    "video": {"link", "id", "caption"},
    "document": {"link", "id", "caption", "filename"},
    "audio": {"link", "id", "voice"},
}
_HEADERS = frozenset({"text", "image", "video", "document", "gif", "location", "product"})
_BODY = frozenset({"text", "currency", "date_time"})
_COMPONENTS = frozenset({"header", "body", "button", "carousel", "limited_time_offer"})
_BUTTONS = {
    "quick_reply": "payload",
    "url": "text",
    "copy_code": "coupon_code",
    "catalog": "action",
    "mpm": "action",
    "flow": "action",
}
_ILLEGAL_SPACE = re.compile(r"[\n\r\t]| {5,}")


class RefusedMessage(Exception):
    """Meta refuses the call: its code and details."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


def _refuse(code: int, details: str) -> NoReturn:
    raise RefusedMessage(code, details)


def check_message(body: dict[str, Any]) -> None:
    """Raise RefusedMessage if the content of a call is not one that Meta accepts."""
    kind = str(body.get("type", "text")).lower()
    if kind not in _TYPES:
        _refuse(100, f"Param type must be one of {sorted(_TYPES)} - got {kind!r}.")
    if not isinstance(body.get(kind), dict | list):
        _refuse(131008, f"{kind} is missing")
    if kind == "template":
        _check_template(body["template"])
    elif kind in _KEYS:
        _check_file(body[kind], kind, _KEYS[kind])


def _check_file(file: Any, kind: str, known: set[str]) -> None:
    if not isinstance(file, dict) or ("link" in file) == ("id" in file):
        _refuse(131008, f"{kind} must have one of link and id")
    if unknown := sorted(set(file) - known):
        _refuse(100, f'Unexpected key "{unknown[0]}" on param "{kind}".')
    if "link" in file and not re.fullmatch(r"https?://\S+", str(file["link"])):
        _refuse(100, f'Param {kind}["link"] is not a valid URI.')
    if len(file.get("caption", "")) > 1024:
        _refuse(131009, f"{kind}: the caption is longer than 1024 characters")


def _check_template(template: dict[str, Any]) -> None:
    code = str((template.get("language") or {}).get("code"))
    if not re.fullmatch("[a-z]{2,3}(_([A-Z]{2}|[0-9]{3}))?", code):
        _refuse(132001, f"template name ({template.get('name')}) does not exist in {code}")
    components = template.get("components", [])
    for component in components:
        kind = str(component.get("type")).lower()
        if kind not in _COMPONENTS:
            _refuse(100, f"Invalid component type {kind}")
        if kind == "button":
            _check_button(component)
        elif kind in ("header", "body"):
            _check_values(component, _HEADERS if kind == "header" else _BODY)
    indexes = [str(one.get("index")) for one in components if str(one.get("type")).lower() == "button"]
    if len(set(indexes)) < len(indexes):
        _refuse(131009, "buttons: two components have the same index")
    _check_names(components)


def _check_names(components: list[dict[str, Any]]) -> None:
    """Refuse named values beside unnamed ones: the format of the parameters holds for the whole template."""
    values = [
        value
        for component in components
        if str(component.get("type")).lower() in ("header", "body")
        for value in component["parameters"]
        if str(value["type"]).lower() in _BODY
    ]
    named = [bool(value.get("parameter_name")) for value in values]
    if any(named) and not all(named):
        _refuse(100, "Parameter name is missing or empty")


def _check_values(component: dict[str, Any], known: frozenset[str]) -> None:
    values = component.get("parameters")
    if not isinstance(values, list) or not values:
        _refuse(131008, f"{component['type']}: parameters are missing")
    for value in values:
        kind = str(value.get("type")).lower()
        if kind not in known:
            _refuse(132012, f"{component['type']}: Format mismatch, unexpected parameter of type {kind}")
        _check_value(kind, value.get(kind))


def _check_value(kind: str, value: Any) -> None:
    if kind in _KEYS:
        _check_file(value, kind, _KEYS[kind] - {"caption"})
    elif kind == "text" and (not isinstance(value, str) or not value):
        _refuse(131008, "Required parameter is missing: text")
    elif kind == "location":
        _check_location(value)
    elif kind in ("currency", "date_time") and not _is_localizable(kind, value):
        _refuse(132012, f"{kind}: a field is missing or has another type")
    shown = value if kind == "text" else value.get("fallback_value", "") if isinstance(value, dict) else ""
    if _ILLEGAL_SPACE.search(shown):
        _refuse(132018, "Param text cannot have new-line/tab characters or more than 4 consecutive spaces")


def _is_localizable(kind: str, value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("fallback_value"), str) or not value["fallback_value"]:
        return False
    amount = value.get("amount_1000")
    return kind == "date_time" or (
        re.fullmatch("[A-Z]{3}", str(value.get("code"))) is not None
        and isinstance(amount, int)
        and abs(amount) <= 2**31
    )


def _check_location(value: Any) -> None:
    """Check the coordinates, which may be numbers or texts."""
    try:
        inside = abs(float(value["latitude"])) <= 90 and abs(float(value["longitude"])) <= 180
    except (KeyError, TypeError, ValueError):
        inside = False
    if not inside:
        _refuse(131009, "location: latitude or longitude is not valid")


def _check_button(component: dict[str, Any]) -> None:
    kind, index = str(component.get("sub_type")).lower(), str(component.get("index"))
    if kind not in _BUTTONS:
        _refuse(100, f"Invalid button sub_type {kind}")
    if not re.fullmatch("[0-9]", index):
        _refuse(131009, f"buttons: index {index} is not valid")
    values = component.get("parameters") or []
    if not values and kind != "catalog":
        _refuse(131008, f"buttons: Button at index {index} of type {kind} requires a parameter")
    for value in values:
        name = _BUTTONS[kind]
        if str(value.get("type")).lower() != name or not value.get(name):
            _refuse(132012, f"buttons: Button at index {index} of type {kind} takes a parameter of type {name}")
        if kind == "copy_code" and not re.fullmatch("[A-Za-z0-9]{1,20}", str(value[name])):
            _refuse(131009, f"buttons: Button at index {index}: the coupon code is not valid")
