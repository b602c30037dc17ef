"""`kill -9` at random moments under load, and a restart on the same folder each time.

After each restart, before new load: what the last daemon acknowledged is there, its keys are known, the books balance, and
no budget is overspent. At the end the same of everything, a clean stop, and `pointsmand verify`.
"""

import random
import signal
import time
from pathlib import Path

from . import promises
from .checks import Checks
from .daemon import Daemon, last_lines, verify, write_config
from .load import Load, Told

KILLS = 200
KILLS_QUICK = 15
# How long a daemon is under load, in seconds.
LOAD_S = (0.05, 1.5)
# Some are killed before they are ready, some while they drain.
KILLED_STARTING = 0.15
STARTING_S = (0.0, 0.25)
KILLED_DRAINING = 0.1
DRAINING_S = (0.0, 0.3)
# Feedback and keys that are looked at after each restart; all of them at the end.
FEEDBACK_LOOKED_AT = 300
KEYS_LOOKED_AT = 10
# Restarts after which teams are new ones, so that some always have money.
TEAM_FOR = 4


def run(checks: Checks, pointsmand: Path, home: Path, rng: random.Random, quick: bool) -> None:
    write_config(home, main_usd="0.01", team_usd="0.015")
    state, told = home / "state", Told()
    feedback, keys, money, ends = [], [], [], []
    kills = KILLS_QUICK if quick else KILLS
    starts_cut = drains_cut = 0
    began = time.monotonic()
    for number in range(kills):
        if rng.random() < KILLED_STARTING:
            starts_cut += 1
            cut = Daemon(pointsmand, home, state)
            time.sleep(rng.uniform(*STARTING_S))
            cut.kill()
        with Daemon(pointsmand, home, state) as daemon, daemon.channel() as channel:
            acked = promises.all_until(told)[-FEEDBACK_LOOKED_AT:]
            feedback += promises.feedback_faults(channel, told, [one for one in acked if one[0] not in told.doubtful])
            keys += promises.key_faults(channel, list(told.keyed.values())[-KEYS_LOOKED_AT:])
            money += promises.money_faults(channel, told, promises.now())
            promises.top_up(channel, least_micros=4_000, step_micros=8_000)
            load = Load(channel, told, rng, [f"t{number // TEAM_FOR}", f"t{number // TEAM_FOR + 1}"])
            time.sleep(rng.uniform(*LOAD_S))
            if daemon.process.poll() is not None:
                ends.append(f"the daemon ended by itself: {last_lines(daemon.log)}")
            if rng.random() < KILLED_DRAINING:
                drains_cut += 1
                daemon.signal(signal.SIGTERM)
                time.sleep(rng.uniform(*DRAINING_S))
            daemon.kill()
            load.join()
    with Daemon(pointsmand, home, state) as daemon, daemon.channel() as channel:
        feedback += promises.feedback_faults(channel, told, promises.all_until(told))
        keys += promises.key_faults(channel, list(told.keyed.values()))
        money += promises.money_faults(channel, told, promises.now())
    with Daemon(pointsmand, home, state) as daemon:
        ends += [] if daemon.stop() == 0 else [f"the last stop was not clean: {last_lines(daemon.log)}"]
    ends += verify(pointsmand, home, state)
    ends += [line for line in daemon.log.read_text(errors="replace").splitlines() if "panicked" in line]

    if not told.refusals["BUDGET_EXHAUSTED"]:
        money.append("money was never short, so this shows little")
    took = time.monotonic() - began
    spent = sum(cost for *_, cost in told.costs)
    refused = ", ".join(f"{count} {reason}" for reason, count in told.refusals.most_common())
    cut = f"{kills} kills, {starts_cut} starts and {drains_cut} drains cut"
    paid = f"{spent / 1e9:.4f} dollars seen spent by {told.routed} routes and {told.reported} reports"
    checks.check("kills: acknowledged feedback", feedback, f"{len(told.acked)} over {cut}, {took:.0f} s")
    checks.check("kills: idempotency keys", keys, f"{len(told.keyed)} answered, none asked twice")
    checks.check("kills: money", money, paid)
    checks.check("kills: replies", told.faults, f"{told.cancelled} gone away; refused: {refused or 'none'}")
    checks.check("kills: clean stop and verify", ends, "equal")
