"""Which of several servers is used next. Pure."""

#: Rest of a server that could not be reached, seconds: doubled by each further failure, up to the longest.
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 1.0, 60.0


class Addresses:
    """The servers, the one in use, and which could not be reached lately. Times are seconds, monotonic."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        self._servers = servers
        #: The server that was reached last; the first one before that.
        self.current = servers[0]
        #: Server -> failures in a row, and when it may be tried again.
        self._resting: dict[str, tuple[int, float]] = {}

    def candidates(self, now: float) -> list[str]:
        """The servers to try now, the best first: those that do not rest, from the current one on.

        While all of them rest, only the one that may be tried first.
        """
        at = self._servers.index(self.current)
        in_order = self._servers[at:] + self._servers[:at]
        return [server for server in in_order if self._rest_ends(server) <= now] or [min(in_order, key=self._rest_ends)]

    def _rest_ends(self, server: str) -> float:
        return self._resting.get(server, (0, 0.0))[1]

    def failed(self, server: str, now: float) -> None:
        """The server could not be reached, or did not answer."""
        failures = self._resting.get(server, (0, 0.0))[0]
        rest = min(FIRST_REST_SECONDS * 2.0 ** min(failures, 30), LONGEST_REST_SECONDS)
        self._resting[server] = failures + 1, now + rest

    def reached(self, server: str) -> None:
        """A login on the server has succeeded."""
        self.current = server
        self._resting.pop(server, None)
