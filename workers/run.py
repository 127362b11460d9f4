"""The long-running processes behind ``countersign worker``, ``beat`` and ``watch``."""

import signal
import sys
import threading
from typing import Final

from celery import Celery
from celery.apps.worker import Worker
from celery.signals import worker_shutting_down

from service.settings import Settings
from service.store import observations
from service.telemetry import metrics
from service.wiring import database_faults_refuse, for_watch, for_worker, observed
from workers.app import make_app
from workers.stopping import Deadline
from workers.tasks import Doorbell, register
from workers.verbs import Verb
from workers.watch import watch

SWITCH_SECONDS: Final = 0.0005
"""How long one thread keeps the interpreter while another wants it, instead of 5 ms. A step waits for two dozen answers
and would stand behind all threads that compute after each of them."""


def run_worker(settings: Settings) -> None:
    """Serve all queues until told to stop.

    Raises:
        SettingsError, StartRefused: the deployment is at fault.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    parts = for_worker(settings)
    app = make_app(settings)
    register(app, lambda: parts)
    with database_faults_refuse():
        observations.ensure_chains(parts.database, list(parts.chains))
    deadline = Deadline(settings.stop_seconds, parts.keeper.give_all_back)

    def told_to_stop(**_: object) -> None:
        parts.keeper.close()
        deadline.begin()

    worker_shutting_down.connect(told_to_stop)
    metrics.SAFE_QUOTA.set(settings.safe_requests_per_month)
    with observed(settings, "worker", parts.database), parts.keeper:
        serve(make_worker(app, settings))


def make_worker(app: Celery, settings: Settings) -> Worker:
    """Celery's worker for all queues.

    Quiet: its banner goes past the log, and a standard output that takes nothing (a full disk) would end the worker.
    """
    return app.Worker(
        concurrency=settings.worker_threads,
        queues=[verb.value for verb in Verb],
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )


def serve(worker: Worker) -> None:
    """Run a worker until it is told to stop.

    Raises:
        SystemExit: it ended by itself: a supervisor must not take that for an orderly end.
    """
    worker.start()
    if worker.exitcode:
        raise SystemExit(worker.exitcode)


def run_beat(settings: Settings) -> None:
    """Send the sweep on its schedule until told to stop.

    Raises:
        SettingsError, StartRefused: no broker is configured, or the port for metrics is taken.
    """
    app = make_app(settings)
    with observed(settings, "beat"):
        app.Beat(loglevel=settings.log_level, quiet=True).run()


def run_watch(settings: Settings) -> None:
    """Listen to new blocks until told to stop.

    Raises:
        SettingsError, StartRefused: the deployment is at fault.
    """
    parts = for_watch(settings)
    bell = Doorbell(make_app(settings))
    with database_faults_refuse():
        observations.ensure_chains(parts.database, list(parts.chains))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with observed(settings, "watch", parts.database):
        watch(parts, bell, stop, stop_seconds=settings.stop_seconds)
    Deadline(0.0).begin()  # calls that hang are in threads which Python would wait for
