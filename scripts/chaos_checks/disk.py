"""A disk that fills up under load and is given room again: a small tmpfs as state folder, which needs root.

While it is full, requests are refused with a typed reason and nothing is acknowledged that is not kept; the daemon stays up.
With room again, it serves without a restart. A daemon that is ended while the disk is full starts again once there is room.
"""

import os
import random
import subprocess
import time
from pathlib import Path

import grpc

from . import promises
from .checks import Checks
from .daemon import Daemon, last_lines, verify, write_config
from .load import USUAL, Load, Told

SMALL, LARGE = "4m", "512m"
# How long the load goes on against the full disk, and after there is room again.
FULL_S, FULL_QUICK_S = 15.0, 3.0
AFTER_S = 2.0
# How long it may take until the disk is full, and until service is back.
FILLED_WITHIN_S = 120.0
BACK_WITHIN_S = 10.0
# What callers hear while nothing can be written: a store that is down, or too much that waits for it. A key whose reply
# could not be kept says so.
REFUSED_WHILE_FULL = {"STORE_DOWN", "OVERLOADED"}
UNKEPT_KEY = "IDEMPOTENCY_KEY_CRASHED"


def run(checks: Checks, pointsmand: Path, home: Path, rng: random.Random, quick: bool) -> None:
    state = home / "state"
    state.mkdir()
    if os.geteuid() != 0 or mount(state, f"size={SMALL},mode=700").returncode != 0:
        checks.skip("disk", "a tmpfs cannot be mounted here; needs root")
        return
    try:
        fill_and_free(checks, pointsmand, home, rng, FULL_QUICK_S if quick else FULL_S)
    finally:
        subprocess.run(["umount", state], check=True)


def mount(state: Path, options: str) -> subprocess.CompletedProcess:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", state], capture_output=True, check=False)


def fill_and_free(checks: Checks, pointsmand: Path, home: Path, rng: random.Random, full_s: float) -> None:
    write_config(home, main_usd="10", team_usd="5")
    state, told = home / "state", Told()
    feedback, keys, money, ends = [], [], [], []
    usual = USUAL | REFUSED_WHILE_FULL | {UNKEPT_KEY}
    teams = ["t0", "t1"]
    with Daemon(pointsmand, home, state) as daemon:
        with daemon.channel() as channel:
            load = Load(channel, told, rng, teams, usual)
            filled = promises.wait_for(lambda: told.refusals["STORE_DOWN"] > 0, FILLED_WITHIN_S)
            before = len(told.acked)
            time.sleep(full_s)
            load.stop()
            if filled is None:
                ends.append(f"nobody was refused within {FILLED_WITHIN_S:.0f} s: {told.refusals}")
            if daemon.process.poll() is not None:
                ends.append(f"the daemon ended on the full disk: {last_lines(daemon.log)}")
            while_full, acked_full = told.refusals.copy(), len(told.acked) - before
            mount(state, f"remount,size={LARGE}")
            back = promises.wait_for(lambda: serves(channel), BACK_WITHIN_S)
            if back is None:
                ends.append(f"no service within {BACK_WITHIN_S:.0f} s of there being room: {last_lines(daemon.log)}")
            load = Load(channel, told, rng, teams, usual)
            time.sleep(AFTER_S)
            load.stop()
            after = +(told.refusals - while_full)
            ends += [f"{count} still refused: {reason}" for reason, count in after.items() if reason in REFUSED_WHILE_FULL]
            look(channel, told, (feedback, keys, money))
        ends += [] if daemon.stop() == 0 else [f"the stop was not clean: {last_lines(daemon.log)}"]
    ends += verify(pointsmand, home, state)
    with Daemon(pointsmand, home, state) as daemon, daemon.channel() as channel:
        look(channel, told, (feedback, keys, money))
    ends += ended_while_full(pointsmand, home, rng, (told, teams, usual))
    with Daemon(pointsmand, home, state) as daemon, daemon.channel() as channel:
        look(channel, told, (feedback, keys, money))
        ends += [] if serves(channel) else ["no service after a start with room"]
    ends += [line for line in daemon.log.read_text(errors="replace").splitlines() if "panicked" in line]
    ends += verify(pointsmand, home, state)

    refused = ", ".join(f"{count} {reason}" for reason, count in while_full.most_common())
    checks.check("disk: acknowledged feedback", feedback, f"{len(told.acked)}, {acked_full} of them on the full disk")
    checks.check("disk: money and keys", money + keys, f"{len(told.costs)} costs, {len(told.keyed)} keys")
    checks.check("disk: refusals are typed", told.faults, refused)
    checks.check("disk: stays up and serves again", ends, f"{back or 0:.2f} s after there was room; verify equal")


def look(channel: grpc.Channel, told: Told, faults: tuple[list, list, list]) -> None:
    """Holds what was promised against what is there, while nothing runs."""
    feedback, keys, money = faults
    feedback += promises.feedback_faults(channel, told, promises.all_until(told))
    # The reply of a key went out though it could not be kept: it is not asked again, and that is promised.
    keys += [fault for fault in promises.key_faults(channel, list(told.keyed.values())) if UNKEPT_KEY not in fault]
    money += promises.money_faults(channel, told, promises.now())


def ended_while_full(pointsmand: Path, home: Path, rng: random.Random, clients: tuple) -> list[str]:
    """Fills what is left with a file, ends the daemon as a crash does, and starts one while the disk is full: it serves
    or says why not, and does not wait. Then there is room."""
    state, faults = home / "state", []
    told, teams, usual = clients
    with Daemon(pointsmand, home, state) as daemon, daemon.channel() as channel:
        load = Load(channel, told, rng, teams, usual)
        ballast = state / "ballast"
        fill(ballast)
        refused = told.refusals["STORE_DOWN"]
        if promises.wait_for(lambda: told.refusals["STORE_DOWN"] > refused, FILLED_WITHIN_S) is None:
            faults.append("nobody was refused beside the ballast")
        daemon.kill()
        load.join()
    again = Daemon(pointsmand, home, state)
    if not again.ready() and again.process.wait() != 1:
        faults.append(f"a start on a full disk ended with {again.process.returncode}: {last_lines(again.log)}")
    again.kill()
    ballast.unlink()
    return faults


def fill(file: Path) -> None:
    """Writes zeros until the disk has no room."""
    try:
        with file.open("wb", buffering=0) as out:
            while True:
                out.write(bytes(1 << 16))
    except OSError:
        return


def serves(channel: grpc.Channel) -> bool:
    try:
        promises.serve(channel)
    except grpc.RpcError:
        return False
    return True
