"""What the sandbox broker reports about itself and its connections."""

import os
import platform
import resource
import struct
import threading

from pipeline.testbed.sandbox.iggy import protocol
from pipeline.testbed.sandbox.iggy.protocol import Reader
from pipeline.testbed.sandbox.iggy.state import Session, State


def cluster(state: State, session: Session, __: Reader) -> bytes:
    """The one node that there is: the client asks for it after each login, and connects to that address then."""
    host, port = session.host or state.address[0], state.address[1]
    return (protocol.long_text("single-node") + struct.pack("<I", 1) + protocol.long_text("iggy-node")
            + protocol.long_text(host) + struct.pack("<HHHHBB", port, 0, 0, 0, 0, 0))


def stats(state: State, _: Session, __: Reader) -> bytes:
    """Counts of what is stored, and the process and machine it is in. Source: `responses/system/get_stats.rs`."""
    logs = [log for stream in state.streams.values() for log in stream.logs()]
    topics = [topic for _, topic in state.topics()]
    page, disk = os.sysconf("SC_PAGE_SIZE"), os.statvfs(".")
    numbers = struct.pack(
        "<IffQQQQQQQQIIIIQII", os.getpid(), 0.0, 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page, state.clock() - state.started_at,
        state.started_at, 0, 0, sum(log.size for log in logs), len(state.streams), len(topics), len(logs), len(logs),
        sum(log.messages for log in logs), len(state.sessions), sum(len(topic.groups) for topic in topics))
    names = platform.node(), platform.system(), platform.version(), platform.release(), protocol.SERVER_VERSION
    return numbers + b"".join(map(protocol.long_text, names)) + struct.pack(
        "<IIIQQ", protocol.SERVER_SEMVER, 0, threading.active_count(), disk.f_bavail * disk.f_frsize,
        disk.f_blocks * disk.f_frsize)


def options(_: State, __: Session, reader: Reader) -> bytes:
    """The options that topics (1) may have; streams and users have none."""
    return protocol.topic_catalog() if reader.u8() == 1 else bytes(4)


def me(state: State, session: Session, _: Reader) -> bytes:
    """The connection, and the groups it is a member of. Source: `responses/clients/client_response.rs`."""
    memberships = [(stream.id, topic.id, group.id) for stream, topic in state.topics()
                   for group in topic.groups.values() if group.member(session.id)]
    user = session.user.number if session.user is not None else 0
    return (struct.pack("<IIB", session.number, user, 1) + protocol.long_text(session.peer)
            + struct.pack("<I", len(memberships)) + b"".join(struct.pack("<III", *ids) for ids in memberships))
