"""The one translation of the Phala Cloud client's errors into ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.adapters.http import one_line
from service.domain.errors import (
    Busy,
    CountersignError,
    Nonsense,
    NotFound,
    NotVisibleYet,
    Refused,
    TokenDead,
    Unauthorized,
    Unreachable,
)
from service.domain.reasons import Reason
from service.phala import errors as upstream

_LATER: Final = frozenset({408, 425, 429})
_OLD_TOKEN_WORDS: Final = re.compile(r"expired|invalid", re.IGNORECASE)
"""What the official CLI looks for: older servers answered a dead token with 400 and plain text."""
_BAD_REQUEST: Final = 400
_NO_KEY: Final = 401


@contextmanager
def phala_faults(refused: Reason, *, commit: bool = False) -> Iterator[None]:
    """Turn every error of the client into one of ``service.domain.errors``.

    Args:
        refused: public code of a deterministic no.
        commit: 465 to 468 speak of the commit token and of what Phala Cloud sees on chain.
    """
    try:
        yield
    except upstream.OnChainError as error:
        raise (_at_commit(error) if commit else _on_chain(error, refused)) from error
    except upstream.ApiError as error:
        if commit and _means_dead_token(error):
            raise TokenDead(_words(error), retry_after=error.retry_after) from error
        raise _by_status(error, refused) from error
    except upstream.NetworkError as error:
        raise Unreachable(
            _words(error), reason=Reason.PHALA_UNREACHABLE, outcome_unknown=error.outcome_unknown
        ) from error
    except upstream.InvalidArgument as error:
        raise Refused(_words(error), reason=refused) from error
    except upstream.PhalaError as error:
        raise Nonsense(_words(error), reason=Reason.PHALA_UNREACHABLE) from error


def _at_commit(error: upstream.OnChainError) -> CountersignError:
    kind = TokenDead if isinstance(error, upstream.HashInvalidOrExpired) else NotVisibleYet
    return kind(_words(error), retry_after=error.retry_after)


def _on_chain(error: upstream.OnChainError, refused: Reason) -> CountersignError:
    if isinstance(error, upstream.HashRegistrationRequired):  # the expected answer, but without its facts
        return Nonsense(_words(error), reason=Reason.PHALA_UNREACHABLE)
    return Refused(_words(error), reason=refused)


def _means_dead_token(error: upstream.ApiError) -> bool:
    return error.status == _BAD_REQUEST and error.code is None and _OLD_TOKEN_WORDS.search(error.message) is not None


def _by_status(error: upstream.ApiError, refused: Reason) -> CountersignError:
    words, wait = _words(error), error.retry_after
    if isinstance(error, upstream.AuthError):
        return Unauthorized(words, key_refused=error.status == _NO_KEY, retry_after=wait)
    if isinstance(error, upstream.NotFound):
        return NotFound(words, retry_after=wait)
    if isinstance(error, upstream.Conflict) and error.busy:
        return Busy(words, retry_after=wait)
    if isinstance(error, upstream.ServerError) or error.status in _LATER:
        return Unreachable(
            words, reason=Reason.PHALA_UNREACHABLE, outcome_unknown=error.outcome_unknown, retry_after=wait
        )
    return Refused(words, reason=refused, retry_after=wait)


def _words(error: upstream.PhalaError) -> str:
    """Code and message on one line; the client has taken the call's secrets out of the message."""
    return one_line(f"Phala Cloud: {error.code} {error.message}" if error.code else f"Phala Cloud: {error.message}")
