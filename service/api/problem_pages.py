"""The documentation of problems, written from their table.

``docs/errors.md`` is ``python -m service.api.problem_pages``.
"""

import sys

from service.api.problems import PROBLEMS, ProblemType

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
people and may change. `request_id` is also in the `X-Request-Id` header of every answer, errors or not. No value
that was sent is repeated in an error, only names of members and parameters.

These are the answers to calls. Why a change request ended or waits is told by its `reason`: see
[reasons.md](reasons.md).
"""


def section(kind: ProblemType) -> str:
    """The page of one problem type, as Markdown."""
    return (
        f"## {kind.slug}\n\n`{kind.uri}`, status {kind.status}: {kind.title}.\n\n"
        f"{kind.meaning}\n\n**What to do:** {kind.remedy}\n"
    )


def errors_page() -> str:
    """The text of ``docs/errors.md``."""
    return "\n".join([_HEAD, *map(section, PROBLEMS)])


if __name__ == "__main__":
    sys.stdout.write(errors_page())
