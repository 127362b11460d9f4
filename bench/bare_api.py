"""The least that FastAPI and the ORM can do: validate a body, write the same rows, read one. No key, scope or limits.

``python -m bench.bare_api <database URL> <workspace id> <port>``.
"""

import hashlib
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain.ids import public_id
from service.store.database import make_engine
from service.store.tables import ChangeRequest, Event, IdempotentAnswer

URL, WORKSPACE, PORT = sys.argv[1:]
ENGINE = make_engine(URL, pool_size=20)
app = FastAPI()


class Body(BaseModel):
    cvm_id: str
    title: str | None = None
    patch: dict[str, Any]


def _id(kind: str) -> str:
    return public_id(kind, datetime.now(UTC), os.urandom(10))


@app.post("/", status_code=202)
def post(body: Body, idempotency_key: Annotated[str, Header()]) -> dict[str, Any]:
    now = datetime.now(UTC)
    answer = {"id": _id("cr"), "cvm_id": body.cvm_id, "title": body.title, "state": "received"}
    with Session(ENGINE) as session, session.begin():
        request = ChangeRequest(
            id=answer["id"], workspace_id=WORKSPACE, state="received", state_entered_at=now, intake="patch",
            cvm_id=body.cvm_id, title=body.title, patch=body.patch, allow_without_approval=False, warnings=[],
            deadline_at=now + timedelta(days=30), due_at=now, created_at=now, updated_at=now, last_event_seq=1,
        )  # fmt: skip
        session.add(request)
        session.flush()
        text = json.dumps({"type": "change_request.received", "data": answer})
        session.add(
            Event(
                id=_id("evt"),
                workspace_id=WORKSPACE,
                change_request_id=request.id,
                seq=1,
                created_at=now,
                type="change_request.received",
                state="received",
                body=text,
            )
        )
        session.add(
            IdempotentAnswer(
                workspace_id=WORKSPACE,
                key=idempotency_key,
                fingerprint=hashlib.sha256(text.encode()).digest(),
                status=202,
                answer_sealed=text.encode(),
            )
        )
    return answer


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/{request_id}")
def get(request_id: str) -> dict[str, Any]:
    with Session(ENGINE) as session, session.begin():
        row = session.scalars(select(ChangeRequest).where(ChangeRequest.id == request_id)).one()
        return {column.key: getattr(row, column.key) for column in ChangeRequest.__table__.columns}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(PORT), access_log=False, log_level="warning")
