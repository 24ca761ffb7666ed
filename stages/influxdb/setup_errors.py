"""Errors about a request as a whole, by the beginning of the server's message: what to correct in the setup. Pure."""

import re
from typing import Literal, NamedTuple


class SetupError(NamedTuple):
    """A kind of error about a request as a whole."""

    #: Matched from the beginning of a message.
    pattern: str
    reason: Literal["unauthorized", "not_found", "refused"]
    #: What the operator should do.
    advice: str


_ENCODING_ADVICE = "a proxy changes the bodies or their Content-Encoding: correct it, or set gzip = false"
#: For a server without the endpoint.
ENDPOINT_ADVICE = "the server has no such endpoint: correct url (host, port, path), or version"
#: Before each message of QuestDB about a body.
QUESTDB_PREFIX = r"failed to parse line protocol:errors encountered on line\(s\):"
_QUESTDB = QUESTDB_PREFIX
#: What servers answer with 400, 404, 415, 422 and 500.
_SETUP_ERRORS = (
    SetupError(r"database is required|missing db\Z|no db destination provided", "refused", "set influxdb.database"),
    SetupError("invalid consistency level", "refused", "correct influxdb.consistency"),
    SetupError("retention policy not found: ", "not_found",
               "create the retention policy, or correct influxdb.retention_policy"),
    SetupError("no dbrp mapping found", "not_found",
               "map the database and retention policy to a bucket (influx v1 dbrp create), or write to the bucket with "
               'version = "v2"'),
    SetupError("(query error: )?database not found|database name", "not_found",
               "create the database, or correct influxdb.database"),
    SetupError("Please provide either orgID or org|org id is required", "refused", "set influxdb.org, or org_id"),
    SetupError(r"id must have a length of 16 bytes|invalid ID\Z", "refused",
               "correct influxdb.org_id: 16 hexadecimal digits, as in the URL of InfluxDB's own pages; or set org, the "
               "organization's name, instead"),
    SetupError("organization ", "not_found", "correct influxdb.org, or org_id"),
    SetupError("bucket .*not found|bucket is required|missing bucket value", "not_found",
               "create the bucket, or correct influxdb.bucket"),
    SetupError(rf"invalid precision; |error parsing precision|{_QUESTDB}unsupported precision\Z", "refused",
               "this server has other names for precisions than this version of the API: set another version"),
    SetupError(rf"{_QUESTDB}gzip encoding is not supported", "refused",
               "this QuestDB does not support gzip: set gzip = false"),
    SetupError(rf"{_QUESTDB}\nerror in line [0-9]+: table: [^;]*; cannot insert in non-WAL table\Z", "refused",
               "create the table again with WAL: QuestDB writes lines from HTTP only to WAL tables"),
    SetupError(rf"{_QUESTDB}\nerror in line [0-9]+: table: [^;]*; table does not exist, (creating new tables is "
               r"disabled|cannot create table, creating new columns is disabled)\Z", "not_found",
               "create the table, or set line.auto.create.new.tables and line.auto.create.new.columns"),
    SetupError("serde error: |failed to deserialize |missing query parameter", "refused",
               "set database, and a version that this server has"),
    SetupError("db name |namespace name |invalid character in database or rp name", "refused",
               "correct influxdb.database: letters, digits, _, / and -, a letter or digit first"),
    SetupError("(write buffer error: catalog update error: )?Adding a new database would exceed limit", "refused",
               "write to an existing database, or delete one"),
    SetupError("Authorization header was malformed", "unauthorized",
               "correct the token (or token_file): it has a character that a token can't have"),
    SetupError(rf"gzip: |zlib: |(unexpected )?EOF\Z|unable to read data: |(write buffer error: )?error decoding gzip "
               rf"stream|unacceptable content-encoding|{_QUESTDB}gzip decompression error\Z", "refused",
               _ENCODING_ADVICE),
    SetupError("(write buffer error: )?incoming write was empty", "refused", _ENCODING_ADVICE),
    SetupError(r"(remoteAddr: [^;]*; requestURI: [^;]*; )?unsupported path requested: |path not found\Z|404 page not "
               "found|no assets included in binary", "not_found", ENDPOINT_ADVICE),
    SetupError("Client sent an HTTP request to an HTTPS server|.{0,2000}The plain HTTP request was sent to HTTPS port",
               "refused", "the server expects TLS on this port: write https:// in url"),
)
_PATTERNS = [(re.compile(kind.pattern, re.DOTALL), kind) for kind in _SETUP_ERRORS]


def setup_error(message: str) -> SetupError | None:
    """The kind of error that a server's message is; None if it may be about lines."""
    return next((kind for pattern, kind in _PATTERNS if pattern.match(message)), None)
