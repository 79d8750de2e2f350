"""Checks the address of a broker before it is used."""

from __future__ import annotations

from urllib.parse import urlsplit

_FORM = "must have the form amqp://user:password@host:5672/vhost"


def amqp_problem(url: str) -> str | None:
    """Return what is wrong with the address of a broker (or several, separated by semicolons), without quoting it; or None."""
    for one in url.split(";"):
        if not one.startswith(("amqp://", "amqps://")):
            return _FORM
        try:
            parts = urlsplit(one)
            cut_short = parts.port is not None and parts.port < 1
        except ValueError:
            cut_short = True
        if cut_short or parts.fragment or "@" in parts.path + parts.query:
            return f"{_FORM}; in a name or password, write @ / : # ? and % as %40 %2F %3A %23 %3F and %25"
    return None
