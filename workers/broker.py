"""Redis as a doorbell: what is lost with a connection is rung for again by the sweep."""

from kombu.transport import redis


class DoorbellChannel(redis.Channel):
    """Puts nothing back into the queues when it closes.

    kombu's own channel puts back messages that are not acknowledged, also when the connection that it needs for that is
    the one that was lost; then it raises what Celery takes for unrecoverable, and the worker ends.
    """

    do_restore = False


class DoorbellTransport(redis.Transport):
    """Redis with such channels."""

    Channel = DoorbellChannel
