"""The transport uses the proxy of the environment, like httpx."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from wch_common.integrations.shops import GraphSection
from wch_whatsapp.cloud import Accepted, CloudApi, Reply, Unsent
from wch_whatsapp.transport import Transport

ANSWER = b'{"messages": [{"id": "wamid.1"}]}'


async def _sent(lines: list[bytes]) -> Reply:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(ANSWER), ANSWER))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("http_proxy", f"http://127.0.0.1:{port}")
        address = "http://graph.invalid"
        graph = GraphSection.model_validate({"token": SecretStr("t"), "url": address})
        async with server, Transport(address) as transport:
            return await CloudApi(transport, graph, "2002", seconds=5).send({"to": "you"})


def test_the_proxy_of_the_environment_is_used() -> None:
    lines: list[bytes] = []
    assert isinstance(asyncio.run(_sent(lines)), Accepted)
    assert lines == [b"POST http://graph.invalid/v23.0/2002/messages HTTP/1.1\r\n"]


def test_a_host_of_no_proxy_is_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "graph.invalid")
    lines: list[bytes] = []
    assert isinstance(asyncio.run(_sent(lines)), Unsent)
    assert lines == []
