"""Routes for whoever runs the service, and the pages behind the types of problems."""

from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from service.api.description import example, failures
from service.api.problem_pages import section
from service.api.problems import NOT_FOUND, NOT_MIGRATED, NOT_READY, PROBLEMS, UNAVAILABLE, Problem
from service.api.schemas import Health, Readiness
from service.domain.readiness import Condition, Part
from service.store import readiness, revision

router = APIRouter(tags=["service"])
_PAGES = {kind.slug: kind for kind in PROBLEMS}


@router.get("/healthz", summary="Liveness", responses=example(200, "Alive", "The process answers"))
def healthz() -> Health:
    """Answer as long as the process lives; looks at nothing else."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Readiness",
    responses=example(200, "Ready", "Requests are served") | failures(UNAVAILABLE, NOT_MIGRATED, NOT_READY),
)
def readyz(request: Request, scope: Literal["all", "api"] = "all") -> Readiness:
    """Answer whether every part goes on; with `scope=api` only whether this API can serve (for a load balancer)."""
    database = request.app.state.parts.database
    if not revision.is_at_head(database.engine):
        raise Problem(NOT_MIGRATED, f"{NOT_MIGRATED.meaning} {NOT_MIGRATED.remedy}")
    parts = [Part("database", Condition.OK, "migrated")]
    if scope == "all":
        parts += readiness.look(database)
    failing, degraded = (_named(parts, one) for one in (Condition.FAILING, Condition.DEGRADED))
    if failing:
        raise Problem(NOT_READY, f"Failing: {failing}." + (f" Degraded only: {degraded}." if degraded else ""))
    shown = {part.name: f"{part.condition}: {part.detail}" for part in parts}
    return Readiness(status="degraded" if degraded else "ready", parts=shown)


def _named(parts: list[Part], condition: Condition) -> str:
    return ", ".join(f"{part.name} ({part.detail})" for part in parts if part.condition is condition)


@router.get(
    "/problems/{slug}",
    summary="What a type of problem means",
    response_class=PlainTextResponse,
    responses=example(200, "ProblemPage", "The page", media_type="text/plain") | failures(NOT_FOUND),
)
def problem_page(slug: str) -> PlainTextResponse:
    """Explain the `type` of a problem, as Markdown."""
    kind = _PAGES.get(slug)
    if kind is None:
        raise Problem(NOT_FOUND, "There is no such type of problem.")
    return PlainTextResponse(section(kind), headers={"Cache-Control": "public, max-age=3600"})
