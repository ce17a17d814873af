"""What a URI, a folder name or an endpoint in a configuration may look like.

Pure checks that raise ValueError with `rule; remedy`; nothing is opened. Secrets never belong in a file that
is logged, stored as an artifact and sent to a tracker, so a user name and password in a URI are refused and
masked in messages.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_SIGNED = re.compile(r"(?i)((?:signature|token|secret|password|credential|access[-_]?key)[^=&\s]*=)[^&\s]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TRACKING_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", "uc")
_HOST_AND_PORT = re.compile(r"[\w.-]*[\w-]:\d{1,5}(/.*)?")
MAX_URI_CHARACTERS = 1024
NOT_TEXT = "must be UTF-8 text, and some bytes of this name are not"
NOT_TEXT_REMEDY = "rename it, or give a link to it that has a plain name (`ln -s`)"


def mask_secrets(text: str) -> str:
    """Hide credentials and signed parameters in a text that may hold a URI."""
    return _SIGNED.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def is_text(name: str) -> bool:
    """Whether a name is text; Python holds a file name's bytes that are no UTF-8 as halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def local_path(path: str) -> Path:
    """A folder or file as a user wrote it, with `~` and `~user` in place.

    Raises:
        ConfigError: There is no such user, or nobody knows this one's home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = path.split("/")[0]
        who = "HOME is not set" if user == "~" else f"there is no user {user.removeprefix('~')!r}"
        raise ConfigError(f"{path}: {who} on this machine; write the folder out") from None


def absolute_path(path: str) -> Path:
    """The same without links and `..`, from the root.

    Raises:
        ConfigError: There is no such user, or links lead in a circle.
    """
    try:
        return local_path(path).resolve()
    except (RuntimeError, OSError) as err:
        reason = "links lead in a circle" if isinstance(err, RuntimeError) else err.strerror
        raise ConfigError(
            f"{path}: cannot be followed ({reason}); mend the link, or write the path out"
        ) from None


def check_store_uri(uri: str) -> str:
    """A folder, `file:///folder` or `s3://bucket/prefix`.

    Raises:
        ValueError: Anything else.
    """
    scheme = _check_common(uri)
    if _HOST_AND_PORT.fullmatch(uri):
        raise ValueError(
            "must be a folder or a bucket, not a server; write `s3://bucket/prefix`, and the server in "
            "storage.endpoint_url"
        )
    if scheme not in ("", "file", "s3"):
        remedy = "use a folder, `file:///folder` or `s3://bucket/prefix`"
        raise ValueError(f"must be a folder, a file:// or an s3:// URI, not `{scheme}:`; {remedy}")
    if scheme == "file" and not uri.startswith("file:///"):
        raise ValueError("a file URI must hold an absolute path; write `file:///folder`")
    if scheme == "s3":
        _check_s3(uri)
    return uri


def check_tracking_uri(uri: str) -> str:
    """A tracking server or database, or a folder.

    Raises:
        ValueError: An unknown scheme, or credentials in the URI.
    """
    scheme = _check_common(uri).split("+")[0]
    if scheme and scheme not in _TRACKING_SCHEMES:
        remedy = "use `http(s)://host:port`, `sqlite:///file.db` or a folder"
        raise ValueError(f"must be a tracking URI of a known scheme, not `{scheme}:`; {remedy}")
    if scheme in ("databricks", "uc", "file", ""):
        if _HOST_AND_PORT.fullmatch(uri):
            raise ValueError(
                f"must say how the server is reached, else it is a folder; write `http://{uri}` or `./{uri}`"
            )
        return uri
    if not re.match(r"[^:]+://", uri):
        raise ValueError(f"must have `://` after the scheme; write `{scheme}://...`")
    if scheme in ("http", "https"):
        _check_server(uri)
    if scheme == "sqlite":
        _check_sqlite(uri)
    return uri


def _check_server(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError("must name a host, and a port by number; write `http(s)://host:port`")
    if parts.query or parts.fragment:
        raise ValueError(
            "must be the server's address, not that of one of its pages; leave out `?`, `#` and what follows"
        )


def _check_sqlite(uri: str) -> None:
    """Three slashes and a file: what SQLAlchemy opens, less what would be lost with the process."""
    path = re.sub(r"(?i)^sqlite(\+\w+)?://", "", uri)
    if not path.startswith("/") or path in ("/", "/:memory:"):
        remedy = "write `sqlite:///file.db`, or `sqlite:////folder/file.db`"
        raise ValueError(f"must name a file after three slashes; {remedy}")
    if "?" in path:
        raise ValueError("must hold no options after `?`; write `%3F` for a `?` in a name")


def check_endpoint_url(url: str) -> str:
    """An HTTP(S) URL with a host and no credentials.

    Raises:
        ValueError: Anything else.
    """
    if _check_common(url) not in ("http", "https") or not re.match(r"(?i)https?://[^/?#]+", url):
        raise ValueError("must be an http:// or https:// URL; write `http(s)://host:port`")
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must name a port from 1 to 65535, or none; write `http(s)://host:port`")
    return url


def check_folder(path: str) -> str:
    """A local folder.

    Raises:
        ValueError: A URI, an empty text or control characters.
    """
    if _check_common(path):
        raise ValueError("must be a local folder, not a URI; remove the scheme")
    return path


def _check_common(uri: str) -> str:
    """Refuse what no URI here may hold; returns the scheme in lower case, empty for a plain path."""
    if not uri.strip():
        raise ValueError("must not be empty; remove the line to use the default")
    if len(uri) > MAX_URI_CHARACTERS:
        raise ValueError(f"must be at most {MAX_URI_CHARACTERS} characters")
    if _CONTROL.search(uri) or uri != uri.strip():
        raise ValueError("must not hold control characters or blanks at its ends")
    if "${" in uri or "$(" in uri:
        raise ValueError("environment variables are not expanded in a file; pass the value with `--set`")
    if _CREDENTIALS.search(uri) or mask_secrets(uri) != uri:
        raise ValueError("must not hold credentials; set them in the environment or in a credentials file")
    if not is_text(uri):
        raise ValueError(f"{NOT_TEXT}; {NOT_TEXT_REMEDY}")
    if uri.startswith("~"):
        _check_home(uri)
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def _check_home(path: str) -> None:
    try:
        local_path(path)
    except ConfigError as err:
        raise ValueError(err.faults[0].rule.partition(": ")[2]) from None


def _check_s3(uri: str) -> None:
    if not uri.startswith("s3://"):
        raise ValueError("an S3 URI must start with `s3://`; write `s3://bucket/prefix`")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "must name a bucket of 3 to 63 lower-case letters, digits, `.` or `-`; write `s3://bucket/prefix`"
        )
    if ".." in prefix.split("/"):
        raise ValueError("must not hold `..` in the prefix; write the prefix out")
    if "?" in uri or "#" in uri:
        raise ValueError("must not hold `?` or `#`; an S3 URI has no query")
