"""Redis as a doorbell: what is lost with a connection is rung for again by the sweep."""

from kombu.transport import redis


class DoorbellChannel(redis.Channel):
    """Does nothing for messages whose connection was lost.

    kombu's own channel puts unacknowledged messages back when it closes, and acknowledges late ones, also when the
    connection that it needs for that is gone; then it raises what Celery takes for unrecoverable, and the worker ends.
    """

    do_restore = False

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge, unless nobody listens any more: the message comes again and finds nothing due."""
        if not self.closed:
            super().basic_ack(delivery_tag, multiple=multiple)  # type: ignore[no-untyped-call]  # kombu is half typed

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """The same for a rejection."""
        if not self.closed:
            super().basic_reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]  # likewise


class DoorbellTransport(redis.Transport):
    """Redis with such channels."""

    Channel = DoorbellChannel
    connection_errors = (*redis.Transport.connection_errors, ValueError)
    """Garbage counts as a lost connection: redis-py reads lengths with ``int``, kombu messages as JSON."""
