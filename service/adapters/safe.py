import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from service.adapters.bulkhead import Bulkhead, Pause, Shares
from service.adapters.clock import SystemClock
from service.adapters.http import Reply, exchange, new_client, parse_json, retry_after, transport_faults
from service.adapters.observed import Observed
from service.adapters.rpc_http import transport_to
from service.adapters.safe_messages import delete_request_digest
from service.adapters.safe_shapes import DelegateRow, Page, TransactionRow, words_of
from service.domain.errors import Nonsense, Refused, Unreachable
from service.domain.hexes import ZERO_ADDRESS, address, bytes32
from service.domain.origin import ORIGIN_CHARACTERS
from service.domain.reasons import Reason
from service.domain.snapshots import SafeTransaction
from service.ports import Clock, QueuedTransaction, Signer

Row = TypeVar("Row", bound=BaseModel)
_WHO: Final = "Safe Transaction Service"
_REASON: Final = Reason.SAFE_SERVICE_UNREACHABLE
_ANSWER_BYTES: Final = 8 * 1024 * 1024
_PAGE: Final = 200  # more is cut silently
_PAGES: Final = 50
_PAUSE_SECONDS: Final = 1.0
"""After a 429 that does not say how long."""
_LONGEST_PAUSE_SECONDS: Final = 86400.0


class TransactionService:
    """The ``SafeQueue`` port: the Safe Transaction Service of one chain, version 2 of its API.

    Raw requests, not safe-eth-py's client: that one always proposes with the origin "Safe-CLI", knows one exception
    type for everything, reads API key and timeout from the environment when it is imported, and reads no more than
    the first page. Links to next pages are not followed (an API key would go wherever they point): pages are
    asked for by offset.

    Args:
        base_url: with or without ``/api`` at the end, as safe-eth-py or api-kit take it.
        chain_id: EIP-155 id of the chain it serves.
        signer: the proposer, who may also delete.
        api_key: key of the hosted gateway, if any.
        timeout: seconds for one exchange.
        calls: threads that may be inside calls at once; at most half of them for one Safe.
        clock: for the hour in deletions, and for expiry dates.
        transport: replaces the network.
        monotonic: the time, for pauses that the service asks for.
        heard: told after each call whether the service answered it; must not raise.

    Raises:
        ValueError: the API key cannot stand in a header.
    """

    def __init__(  # noqa: PLR0913 - what it stands on, by keyword
        self,
        base_url: str,
        *,
        chain_id: int,
        signer: Signer,
        api_key: SecretStr | None = None,
        timeout: float = 10.0,
        calls: int = 4,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        heard: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._url = base_url.rstrip("/").removesuffix("/api") + "/api"
        self._chain_id = chain_id
        self._signer = signer
        self._seconds = timeout
        self._clock = clock or SystemClock()
        self._heard = heard
        network = Observed(transport or transport_to(self._url), "safe_service", chain_id=chain_id)
        self._client = new_client(timeout=timeout, transport=network)
        who = f"{_WHO} of chain {chain_id}"
        self._bulkhead = Bulkhead(who, _REASON, calls)
        self._shares = Shares(f"{who}, one Safe", _REASON, max(1, calls // 2))
        self._pause = Pause(monotonic, longest=_LONGEST_PAUSE_SECONDS)
        if api_key is not None:
            key = api_key.get_secret_value()
            if not key.isascii() or not key.isprintable():
                raise ValueError("the API key of the Safe Transaction Service has characters no header can hold")
            self._client.headers["Authorization"] = f"Bearer {key}"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def pending(self, safe: str, chain_nonce: int) -> Sequence[QueuedTransaction]:
        """Everything queued at ``chain_nonce`` or above; proposals that no owner or delegate signed are not in it."""
        query: dict[str, str | int] = {"executed": "false", "nonce__gte": chain_nonce}
        rows = list(self._rows(safe, _list_path(safe), query, Page[TransactionRow]))
        if any(int(row.nonce) < chain_nonce or address(row.safe) != address(safe) for row in rows):
            raise Nonsense(f"{_WHO}: transactions that were not asked for", reason=_REASON)
        return [row.queued() for row in rows if not row.is_executed]

    def delegators(self, safe: str, delegate: str) -> frozenset[str]:
        """Checksummed addresses that made ``delegate`` their delegate, for this Safe or for all of theirs.

        Asked by delegate: asked by Safe, the service leaves out those for all Safes. Expired ones do not count.
        """
        safe, delegate, now = address(safe), address(delegate), self._clock.now()
        rows = self._rows(safe, "/v2/delegates/", {"delegate": delegate}, Page[DelegateRow])
        return frozenset(address(row.delegator) for row in rows if row.holds(safe, delegate, now))

    def post(self, transaction: SafeTransaction, signature: str, sender: str, origin: str) -> None:
        """Propose; the same again changes nothing.

        Args:
            transaction: its ``safe_tx_hash`` must be what ``signature`` signs.
            signature: 65 bytes as ``0x`` hex.
            sender: checksummed owner or delegate who signed.
            origin: at most 200 characters, see ``service.domain.origin``.

        Raises:
            Refused: the service says no, in its own words.
        """
        if len(origin) > ORIGIN_CHARACTERS:
            raise Refused(f"the origin is longer than {ORIGIN_CHARACTERS} characters", reason=Reason.PROPOSAL_REFUSED)
        body = {
            "to": transaction.call.to,
            "value": 0,
            "data": None if transaction.call.data == "0x" else transaction.call.data,
            "operation": transaction.call.operation,
            "safeTxGas": 0,
            "baseGas": 0,
            "gasPrice": 0,
            "gasToken": ZERO_ADDRESS,
            "refundReceiver": ZERO_ADDRESS,
            "nonce": transaction.nonce,
            "contractTransactionHash": transaction.safe_tx_hash,
            "sender": sender,
            "signature": signature,
            "origin": origin,
        }
        reply = self._send(transaction.safe, "POST", _list_path(transaction.safe), json=body)
        if reply.status != httpx.codes.CREATED:
            raise _refusal(reply)

    def get(self, safe: str, safe_tx_hash: str) -> QueuedTransaction | None:
        """One transaction of a Safe, ``None`` when the service does not know it."""
        safe_tx_hash = bytes32(safe_tx_hash)
        reply = self._send(safe, "GET", f"/v2/multisig-transactions/{safe_tx_hash}/")
        if _unknown(reply):
            return None
        row = _shaped(TransactionRow, reply)
        if row.safe_tx_hash != safe_tx_hash or address(row.safe) != address(safe):
            raise Nonsense(f"{_WHO}: another transaction than the one asked for", reason=_REASON)
        return row.queued()

    def at_nonce(self, safe: str, nonce: int) -> Sequence[QueuedTransaction]:
        """All transactions of a Safe at one nonce."""
        rows = list(self._rows(safe, _list_path(safe), {"nonce": nonce}, Page[TransactionRow]))
        if any(int(row.nonce) != nonce or address(row.safe) != address(safe) for row in rows):
            raise Nonsense(f"{_WHO}: transactions that were not asked for", reason=_REASON)
        return [row.queued() for row in rows]

    def delete(self, safe: str, safe_tx_hash: str) -> None:
        """Delete an unexecuted proposal of ours from the queue; deleting a missing one is no error.

        Raises:
            Refused: it is executed, or was proposed by somebody else.
        """
        safe_tx_hash = bytes32(safe_tx_hash)
        digest = delete_request_digest(self._chain_id, address(safe), safe_tx_hash, self._clock.now().timestamp())
        body = {"safeTxHash": safe_tx_hash, "signature": self._signer.sign(digest)}
        reply = self._send(safe, "DELETE", f"/v2/multisig-transactions/{safe_tx_hash}/", json=body)
        if reply.status != httpx.codes.NO_CONTENT and not _unknown(reply):
            raise _refusal(reply)

    def _rows(self, safe: str, path: str, query: Mapping[str, str | int], kind: type[Page[Row]]) -> Iterator[Row]:
        offset = 0
        for _ in range(_PAGES):
            reply = self._send(safe, "GET", path, query={**query, "limit": _PAGE, "offset": offset})
            page = _shaped(kind, reply)
            yield from page.results
            offset += len(page.results)
            if page.next is None or not page.results:
                return
        raise Nonsense(f"{_WHO}: a list without an end", reason=_REASON)

    def _send(
        self,
        safe: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        json: Any = None,  # noqa: ANN401 - any JSON
    ) -> Reply:
        self._refuse_while_paused()
        with self._shares.of(address(safe)), self._bulkhead:
            try:
                reply = self._exchange(method, path, query, json)
            except Unreachable:
                self._heard(False)
                raise
        self._heard(True)
        return reply

    def _exchange(self, method: str, path: str, query: Mapping[str, str | int] | None, json: Any) -> Reply:  # noqa: ANN401 - any JSON
        write = method != "GET"
        with transport_faults(_WHO, _REASON, write=write):
            request = self._client.build_request(method, self._url + path, params=query, json=json)
            reply = exchange(self._client, request, limit=_ANSWER_BYTES, seconds=self._seconds)
        if reply.status == httpx.codes.TOO_MANY_REQUESTS or reply.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            wait = retry_after(reply.headers, self._clock.now())
            if reply.status == httpx.codes.TOO_MANY_REQUESTS:
                # Requests are counted for all Safes. Any other fault may be that of one, and delays no other.
                self._pause.ask_for(_PAUSE_SECONDS if wait is None else wait)
            raise Unreachable(
                f"{_WHO}: HTTP {reply.status}",
                reason=_REASON,
                outcome_unknown=write and reply.status != httpx.codes.TOO_MANY_REQUESTS,
                retry_after=wait,
            )
        if reply.status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise Unreachable(f"{_WHO}: HTTP {reply.status}: the API key is missing or wrong", reason=_REASON)
        return reply

    def _refuse_while_paused(self) -> None:
        left = self._pause.left()
        if left:
            detail = f"{_WHO}: asked to be left alone for {left:.0f} s more"
            raise Unreachable(detail, reason=_REASON, retry_after=left)


def _list_path(safe: str) -> str:
    return f"/v2/safes/{address(safe)}/multisig-transactions/"


def _unknown(reply: Reply) -> bool:
    """Whether the service itself says 404: the page of some other server at a wrong URL proves nothing."""
    if reply.status != httpx.codes.NOT_FOUND:
        return False
    body = parse_json(reply, _WHO, _REASON)
    if not isinstance(body, Mapping) or not isinstance(body.get("detail"), str):
        raise Nonsense(f"{_WHO}: HTTP 404 that is not its own: check the base URL", reason=_REASON)
    return True


def _refusal(reply: Reply) -> Refused | Nonsense:
    if not httpx.codes.is_client_error(reply.status) or reply.status == httpx.codes.NOT_FOUND:
        return Nonsense(f"{_WHO}: HTTP {reply.status}: check the base URL", reason=_REASON)
    words = words_of(parse_json(reply, _WHO, _REASON))
    return Refused(f"{_WHO}: {words or f'HTTP {reply.status}'}", reason=Reason.PROPOSAL_REFUSED)


def _shaped(kind: type[Row], reply: Reply) -> Row:
    if reply.status != httpx.codes.OK:
        raise Nonsense(f"{_WHO}: HTTP {reply.status}: check the base URL", reason=_REASON)
    body = parse_json(reply, _WHO, _REASON)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise Nonsense(f"{_WHO}: an answer of the wrong shape at {where[:100]}", reason=_REASON) from None
