"""What every request of ``/v1`` passes before its body is read: key, rate, scope."""

from service.api.auth import LastUses, authenticate, require
from service.api.limits import Concurrency, RateLimit
from service.domain.api_keys import Scope
from service.domain.token_bucket import Quota
from service.store.api_keys import Holder
from service.wiring import ApiParts


class Admission:
    """Lets callers in, or says why not."""

    def __init__(self, parts: ApiParts) -> None:
        """Take the parts of the API."""
        self._database = parts.database
        self._rate = RateLimit(parts.database, Quota(parts.limits.per_minute))
        self.concurrency = Concurrency(parts.limits)
        self.last_uses = LastUses(parts.database)

    def admit(self, authorization: str | None, scope: Scope, headers: dict[str, str]) -> Holder:
        """Who calls. Puts into ``headers`` what the answer says about the key's quota, also when it refuses.

        Raises:
            Problem: ``unauthorized``, ``rate_limited`` or ``insufficient_scope``.
        """
        holder = authenticate(self._database, authorization)
        self.last_uses.note(holder.key_id)
        headers.update(self._rate.take(holder.key_id))
        require(holder, scope)
        return holder
