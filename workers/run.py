"""The long-running processes behind ``countersign worker``, ``beat`` and ``watch``."""

import signal
import threading

from service.settings import Settings
from service.store import observations
from service.wiring import for_watch, for_worker
from workers.app import make_app
from workers.tasks import Doorbell, register
from workers.verbs import Verb
from workers.watch import watch


def run_worker(settings: Settings) -> None:
    """Serve all queues until told to stop.

    Raises:
        SettingsError, StartRefused: the deployment is at fault.
    """
    parts = for_worker(settings)
    app = make_app(settings)
    register(app, lambda: parts)
    observations.ensure_chains(parts.database, list(parts.chains))
    with parts.keeper:
        app.worker_main(
            [
                "worker",
                "--pool=threads",
                f"--concurrency={settings.worker_threads}",
                f"--queues={','.join(verb.value for verb in Verb)}",
                f"--loglevel={settings.log_level}",
                "--without-gossip",
                "--without-mingle",
            ]
        )


def run_beat(settings: Settings) -> None:
    """Send the sweep on its schedule until told to stop.

    Raises:
        SettingsError: no broker is configured.
    """
    make_app(settings).Beat(loglevel=settings.log_level, quiet=True).run()


def run_watch(settings: Settings) -> None:
    """Listen to new blocks until told to stop.

    Raises:
        SettingsError, StartRefused: the deployment is at fault.
    """
    parts = for_watch(settings)
    bell = Doorbell(make_app(settings))
    observations.ensure_chains(parts.database, list(parts.chains))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch(parts, bell, stop)
