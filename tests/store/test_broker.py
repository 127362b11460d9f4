"""The broker as workers use it, on a real Redis."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis
from kombu import Consumer, Message, Queue
from pydantic import SecretStr

from service.settings import Settings
from workers.app import SWEEP_TASK, make_app
from workers.verbs import Verb


@pytest.mark.fault(
    "broker",
    "The connection is lost with messages under way",
    "the worker lives on; the messages find nothing due, or are rung for again",
    "10 s",
)
def test_a_lost_connection_with_messages_under_way_does_not_end_the_worker(redis_url: str):
    """A worker closes its channels after the connection is gone; what they raise then ends it."""
    app = make_app(Settings(redis_url=SecretStr(redis_url)))
    app.send_task(SWEEP_TASK, queue=Verb.SWEEP.value)
    taken: list[Message] = []
    with app.connection_for_read() as connection:
        channel = connection.channel()
        Consumer(channel, [Queue(Verb.SWEEP.value)], callbacks=[lambda _, message: taken.append(message)]).consume()
        connection.drain_events(timeout=5)
        assert len(taken) == 1
        channel.connection.client = None  # as kombu leaves it when closing a lost connection failed half way
        channel.close()


@pytest.mark.fault(
    "broker", "A message cannot be acknowledged any more", "it comes again and finds nothing due", "no delay"
)
def test_an_acknowledgement_that_comes_after_its_connection_was_lost_is_dropped(redis_url: str):
    app = make_app(Settings(redis_url=SecretStr(redis_url)))
    for _ in range(2):
        app.send_task(SWEEP_TASK, queue=Verb.SWEEP.value)
    taken: list[Message] = []
    with app.connection_for_read() as connection:
        channel = connection.channel()
        Consumer(channel, [Queue(Verb.SWEEP.value)], callbacks=[lambda _, message: taken.append(message)]).consume()
        while len(taken) < 2:
            connection.drain_events(timeout=5)
        channel.close()
        channel.connection = None  # as Celery's next connection leaves the earlier one's

        taken[0].ack()
        taken[1].reject(requeue=True)


@pytest.mark.fault(
    "broker",
    "Garbage comes from it, as answers or as messages",
    "taken for a lost connection: the worker connects anew, the sweep rings again",
    "10 s",
)
@pytest.mark.parametrize("garbage", [b"{\xff", b"no json"])
def test_a_garbled_message_is_a_lost_connection_and_does_not_end_the_worker(redis_url: str, garbage: bytes):
    app = make_app(Settings(redis_url=SecretStr(redis_url)))
    with redis.Redis.from_url(redis_url) as broker, app.connection_for_read() as connection:
        broker.lpush(Verb.SWEEP.value, garbage)
        Consumer(connection.channel(), [Queue(Verb.SWEEP.value)]).consume()
        with pytest.raises(connection.connection_errors):
            connection.drain_events(timeout=5)


def test_a_garbled_answer_is_a_lost_connection_and_does_not_end_the_worker():
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=_answer, args=(server, b"$4\xff\xff\r\n"))
        answering.start()
        app = make_app(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{server.getsockname()[1]}/0")))
        with app.connection_for_read() as connection, pytest.raises(connection.connection_errors):
            connection.channel()
        answering.join()


def _answer(server: socket.socket, answer: bytes) -> None:
    """Say this to the first who asks, and be gone."""
    client, _ = server.accept()
    with server, client:
        client.recv(4096)
        client.sendall(answer)


def test_the_broker_is_shown_without_its_password(redis_url: str):
    app = make_app(Settings(redis_url=SecretStr(redis_url)))
    with app.connection_for_read() as connection:
        shown = connection.as_uri()
    password = redis_url.split("@", maxsplit=1)[0].rpartition(":")[2]
    assert password
    assert password not in shown


BROKEN_WORKER = """
import sys
from celery.bootsteps import StartStopStep
from service.settings import load
from workers.app import make_app
from workers.run import make_worker, serve

class Broken(StartStopStep):
    def start(self, parent):
        raise RuntimeError("nothing works")

settings = load()
app = make_app(settings)
app.steps["worker"].add(Broken)
serve(make_worker(app, settings))
"""


@pytest.mark.fault("workers", "A worker ends by an error of its own", "its exit code tells a supervisor so", "no delay")
@pytest.mark.fault(
    "workers",
    "Standard output takes nothing when a worker starts: the disk is full",
    "it starts all the same",
    "no delay",
)
def test_a_worker_that_ends_by_an_error_says_so_and_a_full_disk_is_none(redis_url: str):
    environment = {**os.environ, "COUNTERSIGN_REDIS_URL": redis_url}
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", BROKEN_WORKER],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert "Unrecoverable error: RuntimeError('nothing works')" in ended.stderr
    assert ended.returncode == 1
