"""Controls for whoever tests against the service."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from sandbox.phala_cloud.faults import Fault

router = APIRouter(prefix="/_sandbox")


class Indexing(BaseModel):
    """How the service follows the chain."""

    model_config = ConfigDict(extra="forbid")

    paused: bool = False
    """Index nothing, undo nothing."""
    blocks_behind: int = Field(default=0, ge=0)
    """Stay this many blocks behind the head."""


@router.post("/faults", status_code=204)
def add_fault(fault: Fault, request: Request) -> Response:
    """Misbehave at coming requests."""
    request.app.state.faults.add(fault)
    return Response(status_code=204)


@router.delete("/faults", status_code=204)
def clear_faults(request: Request) -> Response:
    """Behave again."""
    request.app.state.faults.clear()
    return Response(status_code=204)


@router.put("/indexing", status_code=204)
def set_indexing(indexing: Indexing, request: Request) -> Response:
    """Lag behind the chain, or stop following it."""
    for name, value in indexing.model_dump().items():
        sql = "INSERT INTO controls VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2"
        request.app.state.service.database.run(sql, [name, int(value)])
    return Response(status_code=204)


@router.get("/ledger")
def get_ledger(request: Request) -> dict[str, Any]:
    """Requests by route, proposals taken."""
    report: dict[str, Any] = request.app.state.ledger.report()
    return report


@router.delete("/ledger", status_code=204)
def clear_ledger(request: Request) -> Response:
    """Count from zero."""
    request.app.state.ledger.clear()
    return Response(status_code=204)
