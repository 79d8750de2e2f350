"""Message templates of business accounts at Meta: their list, page by page, and what a message of them must have."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from wch_simulators.graph_error import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_ILLEGAL = re.compile(r"[\n\t]| {5,}")
_DEFAULT_FIELDS = "name,parameter_format,components,language,status,category,id"
_NOT_SENDABLE = {
    "PAUSED": (132015, "Template is paused"),
    "DISABLED": (132016, "Template is disabled"),
}
_MEDIA = ("IMAGE", "VIDEO", "DOCUMENT", "LOCATION")
# The sub_type of a button that needs a parameter whenever the template has it.
_ALWAYS = {"COPY_CODE": "copy_code", "MPM": "mpm", "OTP": "url"}


def page(templates: Sequence[Mapping[str, Any]], query: Mapping[str, str], url: str) -> dict[str, Any]:
    """Return a page of templates as Meta does, with cursors, and the addresses of its neighbours where there are any."""
    chosen = [one for one in templates if query.get("name", one["name"]) == one["name"]]
    limit = int(query.get("limit", "25"))
    start = _place(query["after"]) + 1 if query.get("after") else 0
    if query.get("before"):
        end = _place(query["before"])
        start, limit = max(0, end - limit), min(limit, end)
    rows = chosen[start : start + limit]
    fields = query.get("fields", _DEFAULT_FIELDS).split(",")
    answer: dict[str, Any] = {"data": [{name: one[name] for name in (*fields, "id") if name in one} for one in rows]}
    if summary := query.get("summary"):
        counts = {
            "total_count": len(templates),
            "message_template_count": len(templates),
            "message_template_limit": 250,
        }
        known = counts | {"are_translations_complete": True}
        answer["summary"] = {name: known[name] for name in summary.split(",") if name in known}
    if rows:
        paging: dict[str, Any] = {"cursors": {"before": _cursor(start), "after": _cursor(start + len(rows) - 1)}}
        if start + len(rows) < len(chosen):
            paging["next"] = f"{url}?limit={limit}&after={paging['cursors']['after']}"
        if start:
            paging["previous"] = f"{url}?limit={limit}&before={paging['cursors']['before']}"
        answer["paging"] = paging
    return answer


def _cursor(place: int) -> str:
    return base64.urlsafe_b64encode(f"place-{place}".encode()).decode()


def _place(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor).decode().removeprefix("place-"))
    except ValueError:
        raise GraphError(400, 100, "Invalid parameter: after") from None


def check(templates: Sequence[Mapping[str, Any]], message: Mapping[str, Any]) -> None:
    """Raise Meta's error if a message's template does not exist, must not be sent, or needs other parameters."""
    name, language = message.get("name"), (message.get("language") or {}).get("code")
    found = next((one for one in templates if (one["name"], one["language"]) == (name, language)), None)
    status = found["status"] if found else ""
    if status in _NOT_SENDABLE:
        raise GraphError(400, *_NOT_SENDABLE[status])
    if found is None or status != "APPROVED":
        details = f"template name ({name}) does not exist in {language}"
        raise GraphError(404, 132001, "Template name does not exist in the translation", details=details)
    given = message.get("components") or []
    components = {str(one["type"]).upper(): one for one in found["components"]}
    is_named = found.get("parameter_format") == "NAMED"
    _check_header(components.get("HEADER", {}), _parameters(given, "header"), is_named=is_named)
    _check_texts(components.get("BODY", {}).get("text", ""), _parameters(given, "body"), "body", is_named=is_named)
    _check_buttons(components.get("BUTTONS", {}).get("buttons", []), given)


def _parameters(given: Sequence[Mapping[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [parameter for one in given if one.get("type") == type_ for parameter in one.get("parameters", ())]


def _check_header(header: Mapping[str, Any], given: Sequence[Mapping[str, Any]], *, is_named: bool) -> None:
    format_ = header.get("format", "TEXT")
    if format_ in _MEDIA:
        kinds = [str(one.get("type")).upper() for one in given]
        if kinds != [format_]:
            got = kinds[0] if kinds else "UNKNOWN"
            raise _wrong_format(f"header: Format mismatch, expected {format_}, received {got}")
    elif any(one.get("type") != "text" for one in given):
        raise _wrong_format("header: Format mismatch, expected TEXT")
    else:
        _check_texts(header.get("text", ""), given, "header", is_named=is_named)


def _check_texts(text: str, given: Sequence[Mapping[str, Any]], part: str, *, is_named: bool) -> None:
    wanted = set(_PLACEHOLDER.findall(text))
    if len(given) != len(wanted):
        details = f"{part}: number of localizable_params ({len(given)}) does not match the expected number of params ({len(wanted)})"
        raise GraphError(
            400, 132000, "Number of parameters does not match the expected number of params", details=details
        )
    if is_named and {one.get("parameter_name") for one in given} != wanted:
        raise _wrong_format(f"{part}: Parameter name is missing or empty")
    for one in given:
        value = str(one.get("text", "")) if one.get("type") == "text" else "other"
        if not value:
            raise GraphError(400, 131008, "Required parameter is missing", details=f"{part}: text is missing")
        if _ILLEGAL.search(value):
            details = "Param text cannot have new-line/tab characters or more than 4 consecutive spaces"
            raise GraphError(400, 132018, "There was an issue with the parameters in your template", details=details)


def _check_buttons(buttons: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]]) -> None:
    values = {int(one["index"]): str(one.get("sub_type")) for one in given if one.get("type") == "button"}
    for index, needed in _needed(buttons):
        if values.get(index) != needed:
            details = f"buttons: Button at index {index} of type {needed} requires a parameter"
            raise GraphError(400, 131008, "Required parameter is missing", details=details)
    for index, sub_type in values.items():
        type_ = str(buttons[index]["type"]) if index < len(buttons) else ""
        takes = sub_type in (type_.lower(), _ALWAYS.get(type_)) and type_ != "PHONE_NUMBER"
        if not takes or (type_ == "URL" and not _PLACEHOLDER.search(str(buttons[index].get("url")))):
            raise _wrong_format(
                f"buttons: Button at index {index} of type {type_ or 'Unknown'} does not take a {sub_type} parameter"
            )


def _needed(buttons: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Yield the index and the sub_type of each button that needs a parameter."""
    for index, button in enumerate(buttons):
        if button["type"] in _ALWAYS:
            yield index, _ALWAYS[button["type"]]
        elif button["type"] == "URL" and _PLACEHOLDER.search(str(button.get("url"))):
            yield index, "url"


def _wrong_format(details: str) -> GraphError:
    return GraphError(400, 132012, "Parameter format does not match format in the created template", details=details)
