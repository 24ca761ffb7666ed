"""What gRPC's statuses mean, in the words that pyarrow 26 gives them; and where gRPC goes for a URL."""

import pyarrow as pa
import pytest
from pyarrow import flight

from stages.influxdb.answers import OperatorNeeded, Retry
from stages.query.flight import classify_error, grpc_location

URL = "http://h:1"
NO = f"{URL} answered: no"
AROUND = ". gRPC client debug context: {code}:{words}. Client context: IOError: Server never sent a data message. " \
         "Detail: Internal"


@pytest.mark.parametrize(("error", "before", "expected"), [
    (flight.FlightUnauthenticatedError, "Flight returned unauthenticated error, with message: ",
     OperatorNeeded("unauthorized", f"{URL} answered: unauthorized: no")),
    (flight.FlightUnauthorizedError, "Flight returned unauthorized error, with message: ",
     OperatorNeeded("unauthorized", f"{URL} answered: unauthorized: no")),
    (flight.FlightUnavailableError, "Flight returned unavailable error, with message: ",
     Retry("unavailable", f"{URL} answered: unavailable: no")),
    (flight.FlightTimedOutError, "Flight returned timeout error, with message: ", Retry("timeout", NO)),
    (flight.FlightCancelledError, "Flight cancelled call, with message: ", Retry("server_error", NO)),
    (flight.FlightInternalError, "Flight returned internal error, with message: ",
     Retry("server_error", NO)),
    (flight.FlightServerError, "Flight RPC failed with message: ", Retry("server_error", NO)),
    (pa.ArrowKeyError, "Flight returned not found error, with message: ", OperatorNeeded("not_found", NO)),
    (pa.ArrowInvalid, "Flight returned invalid argument error, with message: ", OperatorNeeded("refused", NO)),
    (pa.ArrowInvalid, "gRPC returned resource exhausted error, with message: ",
     Retry("rate_limited", NO)),
    (pa.ArrowInvalid, "gRPC returned precondition failed error, with message: ",
     OperatorNeeded("refused", NO)),
    (pa.ArrowNotImplementedError, "Flight returned unimplemented error, with message: ",
     OperatorNeeded("refused", f"{URL} answered: no; is this the address of InfluxDB 3's Flight service?")),
    (pa.ArrowException, "Unknown: Flight returned already exists error, with message: ",
     Retry("server_error", NO)),
], ids=lambda value: value.__name__ if isinstance(value, type) else "")
def test_a_status_means_what_the_one_of_http_does(
        error: type[Exception], before: str, expected: Retry | OperatorNeeded) -> None:
    assert classify_error(error(before + "no" + AROUND.format(code="X", words="no")), URL) == expected


def test_a_missing_table_is_told_from_a_wrong_query() -> None:
    words = "Error while planning query: table 'public.iox.m' not found"
    found = classify_error(pa.ArrowInvalid("Flight returned invalid argument error, with message: " + words
                                    + AROUND.format(code="INVALID_ARGUMENT", words=words)), URL)
    assert found == OperatorNeeded("not_found", f"{URL} answered: {words}")


def test_an_answer_that_is_no_arrow_is_asked_for_again() -> None:
    assert classify_error(pa.ArrowInvalid("Invalid flatbuffers message."), URL) == Retry(
        "server_error", f"{URL} answered: Invalid flatbuffers message.")


@pytest.mark.parametrize(("words", "expected"), [
    ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: "
     "Connection refused", Retry("no_connection", f"{URL}: no connection (UNKNOWN: ipv4:127.0.0.1:1: Failed to connect "
                                                  "to remote host: Connection refused)")),
    ("Socket closed", Retry("no_connection", f"{URL}: no connection (Socket closed)")),
    ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Ssl handshake failed "
     "(TSI_PROTOCOL_FAILURE): certificate verify failed", OperatorNeeded(
         "refused", f"{URL}: TLS: UNKNOWN: ipv4:127.0.0.1:1: Ssl handshake failed (TSI_PROTOCOL_FAILURE): certificate "
                    "verify failed; correct ca_file, or the certificate"))])
def test_what_is_wrong_with_a_connection_is_said(words: str, expected: Retry | OperatorNeeded) -> None:
    error = flight.FlightUnavailableError("Flight returned unavailable error, with message: " + words
                                          + AROUND.format(code="UNAVAILABLE", words=words))
    assert classify_error(error, URL) == expected


@pytest.mark.parametrize(("url", "expected"), [
    ("http://127.0.0.1:8181", "grpc+tcp://127.0.0.1:8181"), ("https://influx.example", "grpc+tls://influx.example:443"),
    ("http://influx/", "grpc+tcp://influx:80"), ("http://[::1]:8181", "grpc+tcp://[::1]:8181")])
def test_grpc_goes_where_the_url_says(url: str, expected: str) -> None:
    assert grpc_location(url) == expected
