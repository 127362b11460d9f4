"""Commands for people and CI: a client of the REST API that knows nothing of the service behind it."""
