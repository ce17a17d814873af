import stat

import pytest

from orchestrator.cluster.token import ensure_private_token, find_token
from orchestrator.errors import ClusterError

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write_default(home, text=TOKEN, mode=0o644):
    (home / ".ray").mkdir()
    path = home / ".ray" / "auth_token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_a_token_none_is_found(home):
    assert find_token() is None


def test_a_named_file_goes_before_variables_and_they_before_the_home_folder(home, monkeypatch):
    write_default(home, "d" * 20)
    assert find_token().value == "d" * 20
    (home / "path").write_text("p" * 20)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "path"))
    assert find_token().value == "p" * 20
    monkeypatch.setenv("RAY_AUTH_TOKEN", "v" * 20)
    assert find_token().value == "v" * 20
    (home / "named").write_text("n" * 20 + "\n")
    assert find_token(str(home / "named")).value == "n" * 20


def test_a_token_is_not_in_its_repr(home):
    write_default(home)
    assert TOKEN not in repr(find_token())


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough"])
def test_a_file_without_a_proper_token_is_named(home, text):
    (home / "named").write_text(text)
    with pytest.raises(ClusterError, match="named"):
        find_token(str(home / "named"))


def test_a_missing_token_file_is_named(home):
    with pytest.raises(ClusterError, match="absent: No such file"):
        find_token(str(home / "absent"))


def test_a_new_token_is_readable_by_its_owner_alone(home):
    token = ensure_private_token()
    path = home / ".ray" / "auth_token"
    assert path.read_text() == token.value
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_private_token() == token


def test_a_token_file_that_others_may_read_is_closed_to_them(home):
    path = write_default(home, mode=0o644)
    assert ensure_private_token().value == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
