"""Runs the app under uvicorn: in the foreground until a signal, or in a thread for as long as a block lasts."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from forcing.policy.policy import Policy
from forcing.server.app import create_app
from forcing.server.service import ServerSettings, Service

logger = logging.getLogger(__name__)
GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files for TLS. chain: the server's certificate, then those that vouch for it. key: its private key."""

    chain: Path
    key: Path


def run_server(
    policies: Sequence[Policy],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    settings: ServerSettings | None = None,
    certificate: Certificate | None = None,
    allow_remote: bool = False,
    read_again: Callable[[], Sequence[Policy]] | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is in flight and returns.

    port 0 takes a free one. certificate: None for HTTP without TLS. read_again: at SIGHUP, the policies that new
    sessions get from then on, of the same names; none that cannot be read or cannot plan. announce: told one line with
    the URL when the server is ready. Raises ValueError for a host other than loopback with neither a token nor
    allow_remote, or for a certificate that is none; CheckpointError for a policy that cannot act; OSError if the port
    is taken, RuntimeError if the warm-up fails.
    """
    names = ", ".join(policy.name for policy in policies)
    if read_again is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to swap
    settings = settings or ServerSettings()
    _check(policies, certificate)
    listener = _listen(host, port, allow_remote or settings.token is not None)
    url = _url(listener, certificate)

    def ready() -> None:
        # What is there now stays: a full collection of it would stop every robot for a tenth of a second.
        gc.collect()
        gc.freeze()
        announce(f"forcing serves {names} at {url}")

    server = _Server(policies, settings, ready, certificate, read_again)
    server.run(sockets=[listener])
    server.raise_if_failed()


@contextlib.contextmanager
def serving(
    policies: Sequence[Policy],
    *,
    port: int = 0,
    settings: ServerSettings | None = None,
    certificate: Certificate | None = None,
) -> Iterator[str]:
    """The URL of a server on loopback that runs in a thread, ready when the block begins, shut down when it ends."""
    _check(policies, certificate)
    ready = threading.Event()
    listener = _listen("127.0.0.1", port, remote=False)
    url = _url(listener, certificate)
    server = _Server(policies, settings or ServerSettings(), ready.set, certificate)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="forcing-server")
    thread.start()
    try:
        while not ready.wait(0.02):
            if not thread.is_alive():
                break
        server.raise_if_failed()
        yield url
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """uvicorn that says when it is ready, stops taking work before it shuts down, and exits with 0 after a signal."""

    def __init__(
        self,
        policies: Sequence[Policy],
        settings: ServerSettings,
        on_ready: Callable[[], None],
        certificate: Certificate | None,
        read_again: Callable[[], Sequence[Policy]] | None = None,
    ) -> None:
        app = create_app(policies, settings)
        self._service: Service = app.state.service
        self._on_ready, self._read_again = on_ready, read_again
        self._reading: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                log_config=None,
                access_log=False,
                ws="websockets-sansio",
                ws_max_size=settings.max_body_bytes,
                lifespan="on",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=None if certificate is None else certificate.chain,
                ssl_keyfile=None if certificate is None else str(certificate.key),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._watcher = asyncio.create_task(self._announce_when_ready())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.shut_down()
        self._watcher.cancel()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again when all is shut down, which would end the process with its code."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        loop = asyncio.get_running_loop()
        if self._read_again is not None:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup, self._read_again)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            for number, handler in before.items():
                signal.signal(number, handler)

    def raise_if_failed(self) -> None:
        if self._service.state == "failed":
            raise RuntimeError("a policy could not make its first plan; the log above says why")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)

    def _on_hangup(self, read_again: Callable[[], Sequence[Policy]]) -> None:
        self._reading = asyncio.create_task(self._swap(read_again, self._reading))

    async def _swap(self, read_again: Callable[[], Sequence[Policy]], before: asyncio.Task[None] | None) -> None:
        """One after another: a file may have changed again while it was read."""
        if before is not None:
            await before
        try:
            await self._service.swap(await asyncio.to_thread(read_again))
        except Exception:
            logger.exception("policies could not be read again; what is served stays as it is")

    async def _announce_when_ready(self) -> None:
        while self._service.state == "warming up":
            await asyncio.sleep(0.02)
        if self._service.state == "ready":
            self._on_ready()
        else:
            self.should_exit = True


def _check(policies: Sequence[Policy], certificate: Certificate | None) -> None:
    """Raises CheckpointError for a policy that cannot act, ValueError if the certificate's files are not there or do
    not fit together."""
    for policy in policies:
        policy.check_acts()
    if certificate is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate.chain, certificate.key)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"certificate {certificate.chain} with key {certificate.key}: {error}") from error


def _listen(host: str, port: int, remote: bool) -> socket.socket:
    if not remote and not _is_loopback(host):
        raise ValueError(
            f"host {host!r} is not loopback and the server asks nobody for a password; listen on 127.0.0.1, "
            "ask for a token (--token-file), or let anybody drive who reaches it (--allow-remote)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's delay off for named TCP sockets alone: 40 ms a request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {reason}; port 0 takes a free one") from error
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(listener: socket.socket, certificate: Certificate | None) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
