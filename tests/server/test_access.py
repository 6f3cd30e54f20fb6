"""Who is let in: tokens, rates, and TLS on real sockets."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from forcing.policy.policy import Policy
from forcing.server.access import LimitRate, read_token
from forcing.server.client import Client, ServerProblem, ServerUnreachable
from forcing.server.serve import Certificate, run_server, serving
from forcing.server.service import ServerSettings

TOKEN = "not-a-secret-0123456789"
HERE = {"position": [0.0, 0.0], "velocity": [0.0, 0.0]}


@pytest.fixture(scope="module")
def guarded(policy: Policy) -> Iterator[str]:
    with serving([policy], settings=ServerSettings(token=TOKEN)) as url:
        yield url


@pytest.mark.parametrize("header", [None, "", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Basic abc"])
@pytest.mark.parametrize("path", ["/v1/policies", "/metrics", "/openapi.json", "/docs", "/nowhere"])
def test_without_the_token_nothing_is_told(guarded: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.get(f"{guarded}{path}", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["type"] == "urn:forcing:problem:unauthorized"
    assert TOKEN not in answer.text


def test_health_is_told_to_anybody(guarded: str) -> None:
    assert [httpx.get(f"{guarded}{path}").status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_refused_requests_are_counted(guarded: str) -> None:
    httpx.post(f"{guarded}/v1/sessions", json={"policy": "tiny"})
    told = httpx.get(f"{guarded}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert 'forcing_http_requests_total{method="POST",route="unmatched",status="401"}' in told


def test_a_client_with_the_token_drives(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(guarded, token=TOKEN) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
        assert session.act(HERE).source == "fresh"
    with Client(guarded) as client, pytest.raises(ServerProblem, match=r"401 .* the token is missing"):
        client.policies()
    monkeypatch.setenv("FORCING_TOKEN", TOKEN)
    with Client(guarded) as client:
        assert [policy["id"] for policy in client.policies()] == ["tiny"]


def test_settings_do_not_print_their_token() -> None:
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "must hold one word, got 0"), ("two words", "must hold one word, got 2"), ("short", "at least 16 ASCII")],
)
def test_a_token_file_holds_one_long_word(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_token(path)
    path.write_text(f"\n{TOKEN}\n")
    assert read_token(path) == TOKEN


def test_with_a_token_a_server_may_listen_to_others(policy: Policy) -> None:
    with pytest.raises(ValueError, match=r"ask for a token \(--token-file\)"):
        run_server([policy], "0.0.0.0")
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1"):  # no address of this machine: it was tried
        run_server([policy], "192.0.2.1", settings=ServerSettings(token=TOKEN))


def test_who_asks_too_often_waits_and_others_do_not() -> None:
    limit = LimitRate(lambda *_: pytest.fail("not asked"), per_s=4)
    assert [limit._wait_s("a", 10.0) for _ in range(4)] == [0.0] * 4
    assert limit._wait_s("a", 10.0) == pytest.approx(0.25)
    assert limit._wait_s("b", 10.0) == 0.0
    assert limit._wait_s("a", 10.125) == pytest.approx(0.125)
    assert limit._wait_s("a", 10.25) == 0.0
    assert [limit._wait_s("a", 99.0) for _ in range(5)] == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.25])


def test_addresses_that_are_remembered_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcing.server.access.MOST_ADDRESSES", 3)
    limit = LimitRate(lambda *_: pytest.fail("not asked"), per_s=1)
    for address in "abcd":
        assert limit._wait_s(address, 0.0) == 0.0
    assert list(limit._buckets) == ["b", "c", "d"]


def test_over_the_rate_the_answer_is_429_with_when_to_come_back(policy: Policy) -> None:
    with serving([policy], settings=ServerSettings(requests_per_s=3)) as url:
        answers = [httpx.get(f"{url}/v1/policies") for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert refused
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert httpx.get(f"{url}/readyz").status_code == 200
        time.sleep(0.5)
        assert httpx.get(f"{url}/v1/policies").status_code == 200


def test_messages_of_a_stream_count_as_requests_do(policy: Policy) -> None:
    with serving([policy], settings=ServerSettings(requests_per_s=5)) as url, Client(url, retries=0) as client:
        session = client.open("tiny", goal=[1.0, 1.0], stream=True)
        for _ in range(3):  # with opening the session and the stream five requests
            session.act(HERE)
        with pytest.raises(ServerUnreachable, match="1013"):
            session.act(HERE)
        time.sleep(1.2)
        session.close()


def test_rates_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="requests_per_s must be finite and positive, got 0"):
        ServerSettings(requests_per_s=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Path]:
    """A server's certificate for 127.0.0.1, and who vouches for it."""
    folder, root = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = root.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(folder / "chain.pem"), append=True)
    root.cert_pem.write_to_path(str(folder / "root.pem"))
    return Certificate(folder / "chain.pem", folder / "key.pem"), folder / "root.pem"


def test_with_a_certificate_robots_drive_over_tls_and_nobody_else_does(
    policy: Policy, authority: tuple[Certificate, Path]
) -> None:
    certificate, root = authority
    with serving([policy], certificate=certificate) as url:
        assert url.startswith("https://127.0.0.1:")
        with Client(url, authorities=root) as client, client.open("tiny", goal=[1.0, 1.0]) as session:
            assert session.act(HERE).source == "fresh"
        with Client(url, retries=0) as client, pytest.raises(ServerUnreachable, match="certificate verify failed"):
            client.policies()
        with Client(url.replace("https", "http"), retries=0) as client, pytest.raises(ServerUnreachable):
            client.policies()


def test_files_that_are_no_certificate_are_named_before_anything_is_served(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text("no certificate")
    for key in ("chain.pem", "gone.pem"):
        with pytest.raises(ValueError, match=rf"certificate .*chain\.pem with key .*{key}: "):
            run_server([policy], port=0, certificate=Certificate(tmp_path / "chain.pem", tmp_path / key))
