"""``python -m service`` is the ``countersign`` command."""

from service.cli import main

main()
