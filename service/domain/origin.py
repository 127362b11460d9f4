"""What a Safe transaction of ours says of where it comes from. Pure.

The Safe Transaction Service keeps at most 200 characters. Safe{Wallet} shows owners the member ``note`` of an origin
that is a JSON object, as its gateway's ``MultisigTransactionNoteMapper`` reads it, and nothing of any other text.
"""

import json
from collections.abc import Sequence
from typing import Final

ORIGIN_CHARACTERS: Final = 200
_NAME: Final = "Countersign"


def approval_origin(request_ids: Sequence[str]) -> str:
    """Our name and the change requests that wait for the approval, as many as there is room for."""
    return _origin(_NAME, request_ids)


def rejection_origin(request_ids: Sequence[str]) -> str:
    """The same for a rejection, with the change requests that need the approval no more."""
    return _origin(f"{_NAME}: not needed any more:", request_ids)


def _origin(begin: str, request_ids: Sequence[str]) -> str:
    """The more of them are left out, the more are counted behind a plus."""
    notes = (_note(begin, request_ids, shown) for shown in range(len(request_ids), -1, -1))
    return next(text for text in notes if len(text) <= ORIGIN_CHARACTERS)


def _note(begin: str, request_ids: Sequence[str], shown: int) -> str:
    left = len(request_ids) - shown
    words = [begin, *request_ids[:shown], *([f"+{left}"] if left else [])]
    return json.dumps({"note": " ".join(words)})
