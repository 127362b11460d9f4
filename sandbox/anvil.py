"""anvil, Foundry's local EVM, as a child process.

The binary comes from the npm package `@foundry-rs/anvil` that `make setup` installs.

    with Anvil() as anvil:
        anvil.rpc("eth_chainId", [])  # "0x7a69"
"""

import contextlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from sandbox.guardian import Guardian
from sandbox.jsonrpc import JsonRpc
from sandbox.polling import wait_for
from sandbox.processes import ProcessError

CHAIN_ID = 31337
MNEMONIC = "test test test test test test test test test test test junk"  # anvil's public default
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_DYING_SECONDS = 0.5


class AnvilError(ProcessError):
    """anvil is missing, did not start, or died; the message ends with its last output lines."""


def find_anvil(roots: tuple[Path, ...] | None = None) -> Path:
    """Return the anvil executable below `node_modules` of the project or of the working directory.

    The platform package's own binary is preferred to the npm wrapper: one process fewer, and signals arrive.

    Raises:
        AnvilError: there is none.
    """
    for root in roots or (Path(__file__).resolve().parents[1], Path.cwd()):
        modules = root / "node_modules"
        candidates = [
            *sorted(modules.glob("@foundry-rs/anvil-*/bin/anvil*")),
            modules / ".bin" / "anvil",
        ]
        for candidate in candidates:
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate
    raise AnvilError("anvil is not installed: run `make setup` (it comes with the npm packages)")


class Anvil:
    """A running anvil on a free local port; stops with the `with` block or `stop()`.

    Args:
        chain_id: EIP-155 chain id.
        block_time: seconds between blocks; None mines one block per transaction.
        slots_in_an_epoch: `finalized` trails the head by two epochs, so 1 means two blocks.
        state: file the chain is loaded from and, on stop, written to; None keeps it in memory.
        timestamp: time of the genesis block, in seconds since 1970; None is now.
        mnemonic: BIP-39 phrase of the ten dev accounts.
        host: address to listen on.
        port: fixed port; 0 lets the system choose a free one.

    Raises:
        AnvilError: no binary, or the child died or did not answer in time.
    """

    def __init__(
        self,
        *,
        chain_id: int = CHAIN_ID,
        block_time: int | None = None,
        slots_in_an_epoch: int = 1,
        state: Path | None = None,
        timestamp: int | None = None,
        mnemonic: str = MNEMONIC,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.chain_id = chain_id
        options = {
            "--host": host,
            "--port": port,
            "--chain-id": chain_id,
            "--slots-in-an-epoch": slots_in_an_epoch,
            "--mnemonic": mnemonic,
            "--block-time": block_time,
            "--state": state,
            "--timestamp": timestamp,
        }
        arguments = [str(part) for option in options.items() if option[1] is not None for part in option]
        if state is not None:
            arguments.append("--preserve-historical-states")  # reads at old blocks work after a restart too
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._json_rpc: JsonRpc | None = None
        self._process = subprocess.Popen(  # noqa: S603 - the binary of our own node_modules, no shell
            [find_anvil(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the parent's to handle: it stops us in its own order
        )
        Guardian.of_this_process().watch(self._process.pid)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        """Wait for the port in the child's own words, so that nobody else's answer is taken for it."""
        listening = wait_for(self._listening, _START_SECONDS)
        if listening is None:
            raise AnvilError(f"anvil did not start within {_START_SECONDS:.0f} s\n{self.last_output()}")
        self.port = int(listening[1])
        self.rpc_url = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}"
        self._json_rpc = JsonRpc(self.rpc_url)
        self.rpc("anvil_setLoggingEnabled", [False])  # else every call is printed

    def _listening(self) -> re.Match[str] | None:
        self._check_alive()
        return re.search(r"^Listening on \S+:(\d+)$", self.last_output(), re.MULTILINE)

    def _check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise AnvilError(f"anvil ended with code {code}\n{self.last_output()}")

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def last_output(self, lines: int = 20) -> str:
        """Return the last lines anvil printed (it prints warnings and errors only)."""
        size = os.fstat(self._output.fileno()).st_size
        tail = os.pread(self._output.fileno(), 8192, max(0, size - 8192))
        return "\n".join(tail.decode(errors="replace").splitlines()[-lines:])

    def rpc(self, method: str, params: list[Any] | None = None) -> Any:  # noqa: ANN401 - JSON-RPC results are any JSON
        """Call a JSON-RPC method and return its `result`.

        Raises:
            RpcError: the node answered an error.
            AnvilError: the child has died.
            httpx.TransportError: no answer, though it lives.
        """
        if self._json_rpc is None:
            raise AnvilError("anvil is not listening yet")
        try:
            return self._json_rpc(method, params)
        except httpx.TransportError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DYING_SECONDS)  # a lost connection shows before the exit does
            self._check_alive()
            raise

    def stop(self) -> None:
        """Stop the child (writing the state file, if one was given); harmless when already stopped."""
        if self._json_rpc is not None:
            self._json_rpc.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        Guardian.of_this_process().forget(self._process.pid)
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
