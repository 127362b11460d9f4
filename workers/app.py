"""The Celery application: queues by verb, late acknowledgement, JSON, the beat table.

The broker only wakes: every task carries an id, and the row behind it says whether there is anything to do. A lost or
doubled message costs seconds at most.
"""

from celery import Celery
from kombu.entity import Queue

from service.settings import Settings
from workers.verbs import Verb

SWEEP_TASK = "countersign.sweep"
ROUND_TRIP_TASK = "countersign.round_trip"
ROUND_TRIP_SECONDS = 15.0
FORGET_TASK = "countersign.forget"
FORGET_SECONDS = 60.0
"""How often what is older than it is kept is deleted."""


def make_app(settings: Settings) -> Celery:
    """The configured application, without tasks; ``workers.tasks.register`` adds them.

    Raises:
        SettingsError: no broker is configured.
    """
    app = Celery("countersign", broker=settings.need("redis_url").get_secret_value())
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_queues=[Queue(verb.value) for verb in Verb],  # type: ignore[no-untyped-call]  # kombu is half typed
        task_default_queue=Verb.SWEEP.value,
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_concurrency=settings.worker_threads,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_transport="workers.broker:DoorbellTransport",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A message of a dead worker comes back after this; the sweep is far quicker, so it only cleans up.
        broker_transport_options={"visibility_timeout": 300, "socket_timeout": 10, "socket_connect_timeout": 5},
        task_publish_retry=False,
        beat_schedule={
            "sweep": {
                "task": SWEEP_TASK,
                "schedule": settings.sweep_seconds,
                "options": {"queue": Verb.SWEEP.value, "expires": max(settings.sweep_seconds, 1) * 3},
            },
            "forget": {
                "task": FORGET_TASK,
                "schedule": FORGET_SECONDS,
                "options": {"queue": Verb.SWEEP.value, "expires": FORGET_SECONDS},
            },
        }
        | {f"round trip of {verb}": _round_trip(verb) for verb in Verb},
        beat_scheduler="celery.beat:Scheduler",
        beat_max_loop_interval=max(settings.sweep_seconds, 1),
        timezone="UTC",
    )
    return app


def _round_trip(verb: Verb) -> dict[str, object]:
    """A message through a queue, by which a stalled consumer is found."""
    return {
        "task": ROUND_TRIP_TASK,
        "schedule": ROUND_TRIP_SECONDS,
        "args": [verb.value],
        "options": {"queue": verb.value, "expires": ROUND_TRIP_SECONDS * 2},
    }
