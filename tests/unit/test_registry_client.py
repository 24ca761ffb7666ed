"""An encoder's questions to the coordinator: repeated until they are answered; what else is said waits its turn."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from pipeline.config.schema import MappingConfig
from pipeline.points.field_type import FieldType
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.wire import common
from pipeline.wire import sink as wire
from stages.encode.registry_client import RegistryClient
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.type_guard import TypeGuard


class Coordinator:
    """Answers every question but the first; integers become floats, and the tag `device` is over the limit."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Endpoints) -> None:
        self.asked: list[wire.FieldTypesRequest] = []
        self.sketches: list[wire.TagCardinalities] = []
        self._router = context.socket(zmq.ROUTER)
        endpoints.bind_control(self._router)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            name, frame = self._router.recv_multipart()
            if frame == b"end":
                self._router.close(0)
                return
            message = wire.decode_control(frame)
            if isinstance(message, wire.TagCardinalities):
                self.sketches.append(message)
            if isinstance(message, wire.FieldTypesRequest):
                self.asked.append(message)
                if len(self.asked) > 1:
                    decided: dict[str, FieldType] = {
                        field: "float" if kind == "integer" else kind for field, kind in message.types.items()}
                    for answer in (wire.OverLimit(0, ["device"]), wire.FieldTypes("old", "m", message.types),
                                   wire.FieldTypes(message.namespace, message.measurement, decided)):
                        self._router.send_multipart([name, common.encode(answer)])


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    """A context of its own."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(0)


def test_a_question_is_repeated_and_a_verdict_is_told_between_batches(
        context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.encode.registry_client.ANSWER_MILLISECONDS", 50)
    monkeypatch.setattr("stages.encode.registry_client.SKETCH_SECONDS", 0.0)
    endpoints = Endpoints(str(tmp_path))
    coordinator = Coordinator(context, endpoints)
    link = ControlLink(context, endpoints, endpoints.control, "encode-0")
    consultant = RegistryClient(link, logging.getLogger("test"))
    mapping = MappingConfig(tag_fields=("device",), integers="as_written", on_high_cardinality="to_field")
    encoder = Encoder(mapping, "us", "s", "t", lambda bucket: TypeGuard(
        lambda measurement, kinds: consultant.ask_types("here", measurement, kinds)))
    consultant.add(0, encoder)
    origin = BatchOrigin(timestamps=[1])
    try:
        assert encoder.encode([b'{"device":"a","v":1}'], origin).body == b"t,device=a v=1 1\n"
        assert len(coordinator.asked) >= 2
        assert coordinator.asked[0] == wire.FieldTypesRequest("here", "t", {"v": "integer"})
        assert encoder.rules.heads.over == frozenset()
        consultant.listen()
        assert encoder.encode([b'{"device":"a","v":1}'], origin).body == b't v=1,device_value="a" 1\n'
    finally:
        link.socket.send(b"end")
        coordinator.thread.join(10)
    assert list(coordinator.sketches[0].registers) == ["device"]
