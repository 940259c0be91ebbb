"""The OpenAPI description is that of the real routes; no request breaks a server."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from starlette.applications import Starlette
from starlette.routing import Route
from support.signaling_lab import Clock, Lab, config

from sleap_rtc_signaling import app as app_module
from sleap_rtc_signaling.rest_description import OPERATIONS
from sleap_rtc_signaling.server import SignalingServer

REQUESTS_OF_EACH = 25


async def test_every_route_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Starlette] = []

    def keep(**fields: Any) -> Starlette:
        made.append(Starlette(**fields))
        return made[-1]

    monkeypatch.setattr(app_module, "Starlette", keep)
    settings = config(tmp_path, rest_port=0)
    async with SignalingServer(settings) as server:
        lab = Lab(server, Clock())
        described = (await lab.get("/openapi.json")).json()
        await lab.close()
    routes = {
        (method, route.path)
        for application in made
        for route in application.routes
        if isinstance(route, Route) and not route.path.startswith("/dashboard")
        for method in route.methods or ()
        if method != "HEAD" and route.path != "/"
    }
    told = {
        (method.upper(), path)
        for path, methods in described["paths"].items()
        for method in methods
    }
    plain = {(one.method, one.path) for one in OPERATIONS}
    assert told == plain
    assert {(method, path.replace(":int", "")) for method, path in routes} == told


async def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    """Requests made from the description: nothing is a server's fault or a surprise."""
    settings = config(tmp_path, trusted_proxies=("127.0.0.1",))
    async with SignalingServer(settings) as server:
        lab = Lab(server, Clock())
        description = (await lab.get("/openapi.json")).json()
        tokens = ["", await lab.account(), (await lab.room())[1]]
        await lab.close()
        addresses = (
            f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in itertools.count(1)
        )
        turns = itertools.cycle(tokens)
        schema = schemathesis.openapi.from_dict(description)

        def ask_all() -> int:
            asked = 0

            def ask(case: Any) -> None:
                nonlocal asked
                headers = {"X-Forwarded-For": next(addresses)}
                if token := next(turns):
                    headers["Authorization"] = f"Bearer {token}"
                response = case.call(base_url=server.url, headers=headers)
                assert response.status_code < 500, response.text
                case.validate_response(response, checks=CHECKED)
                asked += 1

            for result in schema.get_all_operations():
                operation = result.ok()
                strategy = operation.as_strategy()
                run = hypothesis.given(case=strategy)(ask)
                run = hypothesis.settings(
                    max_examples=REQUESTS_OF_EACH,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(hypothesis.HealthCheck),
                )(run)
                run()
            return asked

        checks = schemathesis.checks
        CHECKED = [
            checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance,
        ]
        asked = await asyncio.to_thread(ask_all)
        assert asked >= len(OPERATIONS)
        lab = Lab(server, Clock())
        assert (await lab.get("/health")).status_code == 200
        await lab.close()
