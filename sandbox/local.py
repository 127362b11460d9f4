"""``countersign sandbox``: a local world with Countersign in it, until Ctrl-C."""

import shlex
import signal
import sys
from pathlib import Path

import httpx

from sandbox.chain.local import ChainError
from sandbox.deployment import Deployment
from sandbox.processes import ProcessError, ProcessGroup
from sandbox.world import World


def run(directory: Path) -> int:
    """Start everything, say where it is, and wait for Ctrl-C or SIGTERM; the exit code."""
    try:
        _run(directory)
    except (ProcessError, ChainError, httpx.HTTPError) as error:
        sys.stderr.write(f"countersign: {error}\n")
        return 1
    return 0


def _run(directory: Path) -> None:
    with ProcessGroup() as group:
        sys.stdout.write("starting an EVM, a Phala Cloud and a Safe Transaction Service ...\n")
        sys.stdout.flush()
        world = group.add(World(directory / "world"))
        sys.stdout.write("starting Countersign ...\n")
        sys.stdout.flush()
        deployment = group.add(Deployment(directory / "countersign", world))
        sys.stdout.write(_where(world, deployment, directory))
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.stdout.write("\nstopping; the state stays in " + str(directory) + "\n")


def _where(world: World, deployment: Deployment, directory: Path) -> str:
    app = world.setup.apps[0]
    approve = shlex.join(
        [sys.executable, "-m", "sandbox.approve", world.anvil.rpc_url, world.safe_service_url, world.setup.safe]
    )
    return f"""
Countersign API           {deployment.url}
  Authorization           Bearer {deployment.api_key}
Phala Cloud               {world.phala_url}
  X-API-Key               {world.setup.phala_api_key}
Safe Transaction Service  {world.safe_service_url}
{f"EVM (chain {world.anvil.chain_id})":<26}{world.anvil.rpc_url}
Safe (2 of 3)             {world.setup.safe}
App contract              {app.address}
CVM                       {app.cvm_uuids[0]}
State and logs            {directory}

Submit a change request as docs/user-guide.md says. Two owners sign and execute its approval with

  {approve} <approval.safe_tx_hash>

Ctrl-C stops it.
"""
