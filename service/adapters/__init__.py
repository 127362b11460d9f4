"""The outside world behind the ports: RPC endpoints, Safe Transaction Service, Phala Cloud, webhook receivers.

Every adapter translates the faults of its library into ``service.domain.errors`` at one place and checks the shape of
every answer: what comes from outside is untrusted.
"""

import logging

# URLs may hold keys (RPC endpoints) and headers do: the HTTP libraries log both, whatever the root logger's level.
for _name in ("httpx", "httpcore", "websockets"):
    logging.getLogger(_name).setLevel(logging.WARNING)
