"""What the OpenAPI description says is what the service does, whatever is sent to it."""

import pytest
from hypothesis import HealthCheck, settings

pytest.importorskip("fastapi", reason="needs quickstudy[app]")
schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

from schemathesis.specs.openapi.checks import (  # noqa: E402
    allow_header_conformance,
    positive_data_acceptance,
)

from quickstudy.app import create_app  # noqa: E402

schema = schemathesis.openapi.from_asgi(
    "/openapi.json", create_app(requests_a_second=1e6, hosts=["testserver"])
)


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_requests_of_every_kind(case: "schemathesis.Case") -> None:
    """All checks but two.

    A description cannot say which strings are images; and to a method that is not there the
    router answers with the methods of one route only.
    """
    case.call_and_validate(
        timeout=300, excluded_checks=[positive_data_acceptance, allow_header_conformance]
    )
