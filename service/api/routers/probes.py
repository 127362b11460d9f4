"""Routes for whoever runs the service, and the pages behind the types of problems."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from service.api.description import example, failures
from service.api.problem_pages import section
from service.api.problems import NOT_FOUND, NOT_MIGRATED, PROBLEMS, UNAVAILABLE, Problem
from service.api.schemas import Health
from service.store import migrate

router = APIRouter(tags=["service"])
_PAGES = {kind.slug: kind for kind in PROBLEMS}


@router.get("/healthz", summary="Liveness", responses=example(200, "Alive", "The process answers"))
def healthz() -> Health:
    """Answer as long as the process lives; looks at nothing else."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Readiness",
    responses=example(200, "Ready", "Requests can be served") | failures(UNAVAILABLE, NOT_MIGRATED),
)
def readyz(request: Request) -> Health:
    """Answer whether the database is reachable and migrated to this version."""
    if not migrate.is_at_head(request.app.state.parts.database.engine):
        raise Problem(NOT_MIGRATED, f"{NOT_MIGRATED.meaning} {NOT_MIGRATED.remedy}")
    return Health(status="ready")


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
