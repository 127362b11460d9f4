"""The documentation of problems and reasons, written from their tables.

``docs/errors.md`` is ``python -m service.api.problem_pages``.
"""

import sys

from service.api.problems import PROBLEMS, ProblemType
from service.domain.reasons import ADVICE, Reason

_HEAD = """\
# Errors

<!-- Written by `python -m service.api.problem_pages > docs/errors.md`; a test compares. -->

Every error answer is `application/problem+json` (RFC 9457):

```json
{
  "type": "/problems/invalid_request",
  "title": "The request is not valid",
  "status": 422,
  "detail": "#/prepared/compose_hash: expected 64 hex digits, optionally after 0x, but it has 63",
  "request_id": "req_5f0c1f6d8a2b4c3e9d7a6b5c4d3e2f10",
  "errors": [
    {
      "pointer": "#/prepared/compose_hash",
      "detail": "expected 64 hex digits, optionally after 0x, but it has 63"
    }
  ]
}
```

`type` is stable and relative to the API, which serves the page of each type there. `title` and `detail` are for
people and may change. `request_id` is also in the `X-Request-Id` header of every answer, errors or not. What was sent
is never repeated in an error.
"""

_REASONS = """\
# Reasons

A change request that ended other than `completed`, or that waits, says why in `reason`: a stable `code`, the advice
below, and a `detail` with the words of whoever said no.

| code | what to do |
|---|---|
"""


def section(kind: ProblemType) -> str:
    """The page of one problem type, as Markdown."""
    return (
        f"## {kind.slug}\n\n`{kind.uri}`, status {kind.status}: {kind.title}.\n\n"
        f"{kind.meaning}\n\n**What to do:** {kind.remedy}\n"
    )


def errors_page() -> str:
    """The text of ``docs/errors.md``."""
    reasons = "".join(f"| `{reason.value}` | {ADVICE[reason]} |\n" for reason in Reason)
    return "\n".join([_HEAD, *map(section, PROBLEMS), _REASONS + reasons])


if __name__ == "__main__":
    sys.stdout.write(errors_page())
