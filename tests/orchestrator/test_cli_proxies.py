"""A proxy in the environment is for other machines."""

import os

import botocore.utils
import pytest
import requests.utils

from orchestrator.cli.proxies import spare_loopback

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.upper(), DEAD)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "example.org, 10.0.0.1")


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize("host", ["127.0.0.1:8333", "localhost:5000", "example.org"])
def test_a_server_on_this_machine_is_asked_directly_as_are_those_that_the_user_named(host: str) -> None:
    spare_loopback()
    assert botocore.utils.get_environ_proxies(f"http://{host}/") == {}
    assert requests.utils.get_environ_proxies(f"http://{host}/") == {}


@pytest.mark.usefixtures("proxied")
def test_another_server_is_asked_through_the_proxy_and_twice_says_it_once() -> None:
    spare_loopback()
    spare_loopback()
    assert botocore.utils.get_environ_proxies("https://s3.amazonaws.com/")["https"] == DEAD
    assert os.environ["no_proxy"] == "example.org,10.0.0.1,127.0.0.1,localhost,::1"
