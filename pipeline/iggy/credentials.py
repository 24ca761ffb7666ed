"""The login at Iggy: a user with a password, or a personal access token, from the configuration or from a file."""

from pathlib import Path

from apache_iggy import AutoLogin
from msgspec import Struct

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.secrets import secret_forms
from pipeline.errors import PipelineError
from pipeline.logs import hide

#: Longest password or token, bytes. Source: Iggy's binary protocol, login.
MAX_SECRET_BYTES = 255


class SecretFileProblem(PipelineError):
    """A file with a password or token cannot be used now; it may be later."""


class Login(Struct, frozen=True):
    """One login. Two are equal if the server would answer both the same."""

    username: str
    secret: str
    is_token: bool
    #: Key that the secret is from, and its file: for errors.
    source: str

    def automatic(self) -> AutoLogin:
        """The login as the client repeats it."""
        return (AutoLogin.personal_access_token(self.secret) if self.is_token
                else AutoLogin.username_password(self.username, self.secret))

    def refused(self) -> str:
        """What the server refuses, and what to do."""
        if self.is_token:
            return (f"refused the token of {self.source}: it is wrong, has expired, or was deleted; "
                    "make a new one and give it there")
        if self.source == "iggy.password":
            return f"refused the login of user {self.username}; correct iggy.username and iggy.password"
        return (f"refused the login of user {self.username} with the password of {self.source}; correct the file, or "
                "iggy.username")

    def user(self) -> str:
        """Who is logged in, for errors."""
        return f"the user of {self.source}" if self.is_token else f"user {self.username}"


class Credentials:
    """The configured login. Files are read anew for each login, as they may change while we run."""

    def __init__(self, config: IggyConfig) -> None:
        self._config = config

    def login(self) -> Login:
        """The login as it is now. Raises SecretFileProblem."""
        config = self._config
        if config.token_file:
            return Login("", self._read("token_file", config.token_file), True, f"iggy.token_file {config.token_file}")
        if config.token:
            return Login("", config.token, True, "iggy.token")
        if config.password_file:
            password = self._read("password_file", config.password_file)
            return Login(config.username, password, False, f"iggy.password_file {config.password_file}")
        return Login(config.username, config.password, False, "iggy.password")

    def _read(self, option: str, path: str) -> str:
        try:
            secret = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SecretFileProblem(f"iggy.{option} {path} cannot be read: {why}") from None
        if not secret or len(secret.encode()) > MAX_SECRET_BYTES:
            raise SecretFileProblem(f"iggy.{option} {path} holds {len(secret.encode())} bytes; give a file with 1 to "
                                    f"{MAX_SECRET_BYTES} bytes in it, and nothing else")
        hide(secret_forms(secret, self._config.username))
        return secret
