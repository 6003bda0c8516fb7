"""OpenTelemetry traces of the real server."""

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.running_server import running_server

pytestmark = pytest.mark.slow


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OpenTelemetry collector: its address, and what was exported to it."""
    exported: list[ExportTraceServiceRequest] = []

    def export(request: ExportTraceServiceRequest, _context: object) -> ExportTraceServiceResponse:
        exported.append(request)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", exported
    finally:
        server.stop(None)


def test_traces_go_where_the_flag_says_and_continue_the_clients(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with (
        collector() as (address, exported),
        running_server(tmp_path, str(tiny_checkpoint), "--name", "tiny", "--traces", address) as server,
    ):
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        httpx.post(
            f"{server.url}/v1/completions",
            json={"model": "tiny", "prompt": "대한민국"},
            headers=headers,
            timeout=120,
        )
        deadline = time.monotonic() + 30
        while not (spans := spans_of(exported, trace)):
            assert time.monotonic() < deadline, "no span arrived"
            time.sleep(0.1)
        attributes = {attribute.key for attribute in spans[0].attributes}
        assert "gen_ai.usage.completion_tokens" in attributes
        assert "gen_ai.latency.time_in_queue" in attributes


def spans_of(exported: list[ExportTraceServiceRequest], trace: str) -> list[Any]:
    """Requests' spans of that trace."""
    return [
        span
        for request in list(exported)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == "llm_request" and span.trace_id.hex() == trace
    ]
