"""Who a ROUTER's message is from."""

from pipeline.sockets.control_socket import sender_of


def test_a_process_has_its_name_and_a_replaced_one_has_none() -> None:
    assert sender_of(b"encode-0") == "encode-0"
    # As seen when the coordinator read what a killed encoder had left.
    assert sender_of(b"\x00\x6b\x8b\x45\x67") == ""
