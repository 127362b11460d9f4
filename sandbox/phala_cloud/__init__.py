"""A Phala Cloud over HTTP that keeps the recorded contract, for the local world.

Start at `app.create_app` (the ASGI application), `server.running` (the application served by uvicorn on a
free port) and `control.Control` (the Python helper that seeds it, moves its clock and makes it misbehave).
"""
