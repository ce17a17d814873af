import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from open_files import no_open_files_left

from orchestrator.cluster.token import Token
from orchestrator.errors import ClusterError
from orchestrator.jobs.client import JobsClient
from orchestrator.jobs.head import Head, check_version, head_url, inspect_head, is_loopback

TOKEN = Token(value="t" * 32, source="a test")


@pytest.fixture
def serve():
    """Start HTTP servers that answer `{path: (status, body)}`; a path's answer may depend on the token header."""
    servers = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer = answers.get(self.path, (404, ""))
                status, body = answer(self.headers.get("Authorization")) if callable(answer) else answer
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def guarded(authorization):
    if authorization is None:
        return 401, "Unauthorized"
    if authorization != f"Bearer {TOKEN.value}":
        return 403, "Forbidden"
    return 200, {"ray_version": "2.60.0"}


def ray_head(version=guarded, mode="token"):
    return {"/api/authentication_mode": (200, {"authentication_mode": mode}), "/api/version": version}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("head", "http://head:8265"),
        ("10.0.0.1:80", "http://10.0.0.1:80"),
        ("http://head", "http://head:8265"),
        ("https://ray.lab.org/", "https://ray.lab.org:443"),
        ("http://[::1]:8265", "http://[::1]:8265"),
        ("http://proxy:80/ray/", "http://proxy:80/ray"),
    ],
)
def test_an_address_becomes_the_dashboards_url(address, url):
    assert head_url(address) == url


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("ray://head:10001", "Ray Client"),
        ("os://head", "must be http"),
        ("http://user:pass@head", "token-file"),
        ("auto", "names no host"),
        ("", "names no host"),
        ("http://head:port", "not an address"),
    ],
)
def test_an_address_of_another_kind_is_refused_with_the_right_form(address, remedy):
    with pytest.raises(ClusterError, match=remedy) as refused:
        head_url(address)
    assert "pass@" not in str(refused.value)


def test_loopback_is_told_from_other_hosts():
    assert all(map(is_loopback, ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1")))
    assert not any(map(is_loopback, ("http://10.0.0.1:1", "https://localhost.example.org")))


def test_a_head_with_the_right_token_says_its_version_and_mode(serve):
    head = inspect_head(serve(ray_head()), TOKEN)
    assert (head.ray_version, head.auth_mode, head.open_to_anyone) == ("2.60.0", "token", False)


def test_a_head_without_authentication_is_known_as_open(serve):
    head = inspect_head(serve(ray_head((200, {"ray_version": "2.60.0"}), "disabled")), None)
    assert head.open_to_anyone


def test_a_ray_too_old_to_authenticate_is_known_as_open(serve):
    head = inspect_head(serve({"/api/version": (200, {"ray_version": "2.9.0"})}), None)
    assert head.open_to_anyone


def test_no_token_names_the_places_a_token_may_be(serve):
    with pytest.raises(ClusterError, match=r"asks for a token and none was found.*auth_token.*--token-file"):
        inspect_head(serve(ray_head()), None)


def test_a_wrong_token_is_named_by_its_source_and_never_shown(serve):
    wrong = Token(value="wrong-token-wrong-token", source="~/.ray/auth_token")
    with pytest.raises(ClusterError, match=r"refuses the token from ~/.ray/auth_token") as refused:
        inspect_head(serve(ray_head()), wrong)
    assert "wrong-token" not in str(refused.value)


def test_a_closed_port_is_unreachable_and_says_how_to_forward_it():
    with pytest.raises(ClusterError, match=r"cannot reach http://127.0.0.1:9.*ssh -L"):
        inspect_head("http://127.0.0.1:9", TOKEN)


def test_a_process_that_can_open_nothing_does_not_call_the_head_unreachable():
    with (
        no_open_files_left(),
        pytest.raises(ClusterError, match=r"Too many open files.*ulimit -n") as refused,
    ):
        inspect_head("http://127.0.0.1:9", TOKEN)
    assert "ssh -L" not in str(refused.value)


def test_a_process_that_can_open_nothing_says_so_of_the_job_server_too():
    class Client:
        def list_jobs(self):
            socket.create_connection(("127.0.0.1", 9))

    jobs = JobsClient(Head(url="http://head:8265", ray_version="2.60.0", auth_mode="token"), Client())
    with (
        no_open_files_left(),
        pytest.raises(ClusterError, match=r"ask http://head:8265 \(Too many open files"),
    ):
        jobs.jobs()


def test_another_web_server_is_not_taken_for_a_head(serve):
    page = (200, "<html>welcome</html>")
    with pytest.raises(ClusterError, match="not as the dashboard of a Ray head"):
        inspect_head(serve({"/api/version": page, "/api/authentication_mode": page}), TOKEN)
    with pytest.raises(ClusterError, match="answers 404"):
        inspect_head(serve({}), TOKEN)


@pytest.mark.parametrize("theirs", ["2.59.1", "2.61.0", "3.60.0"])
def test_another_minor_version_of_ray_is_refused_with_both_versions(serve, theirs):
    head = inspect_head(serve(ray_head((200, {"ray_version": theirs}))), TOKEN)
    with pytest.raises(ClusterError, match=rf"runs Ray {theirs} and this is Ray 2\.60\.0.*2\.60"):
        check_version(head, "2.60.0")


def test_another_patch_of_ray_is_taken(serve):
    check_version(inspect_head(serve(ray_head((200, {"ray_version": "2.60.3"}))), TOKEN), "2.60.0")
