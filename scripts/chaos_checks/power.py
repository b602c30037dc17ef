"""A simulated power cut: strace records what a daemon does to its folder under load, and the folder is rebuilt as a cut at
some moment could have left it (see syscalls.py).

Half of the moments are right after an acknowledgement, the others fall on any call. At each, a daemon starts on what is
left, serves, and stops; whatever was acknowledged before is in `ledger.db`, the books balance, and `pointsmand verify` says
equal; a policy that was trained is whole. At more of them, `ledger.db` alone is opened and read. Traces may lose their last rows; feedback on those stays.

The control run does the same to a ledger that does not sync its commits, and must lose acknowledged rows: otherwise nothing
was shown.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pointsman.v1 import policy_pb2, policy_pb2_grpc

from . import promises, syscalls
from .checks import Checks
from .daemon import Daemon, last_lines, verify, write_config
from .load import Load, Told

# Cuts after which a daemon starts, cuts after which the ledger alone is read, and for how many seconds the recorded load
# goes on after a training.
FULL = (200, 600, 20.0)
QUICK = (15, 60, 2.0)
# Feedback that is acknowledged before a policy is trained, and how long it may take to have it.
JUDGED_TO_TRAIN = 400
JUDGED_WITHIN_S = 120.0
TRAIN_TIMEOUT_S = 120
# A debug build alone hears it; daemon/src/config/layers.rs has its meaning.
LOSE_ROWS = {"POINTSMAN_CHAOS_LOSE_ACKNOWLEDGED_ROWS_AT_A_POWER_CUT": "yes, lose them"}
LOSES_ROWS = "a power cut will lose acknowledged rows"
KEYS_LOOKED_AT = 5
TIMEOUT_S = 30


@dataclass
class Recording:
    """What was done to the folder that holds the state folder, and what clients were told meanwhile."""

    home: Path
    events: list[syscalls.Event]
    told: Told
    # The version of a policy that was trained and made the shadow, and when that was acknowledged.
    shadow: tuple[str, float] | None
    faults: list[str]


def run(checks: Checks, pointsmand: Path, home: Path, rng: random.Random, quick: bool) -> None:
    if not shutil.which("strace"):
        checks.miss("power", "strace is not installed; on Debian: apt-get install strace")
        return
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        checks.miss("power", "strace may not trace here; allow ptrace")
        return
    started, read, seconds = QUICK if quick else FULL
    recording = record(pointsmand, home / "synced", rng, seconds)
    checks.check("power: recording", recording.faults, figures(recording))
    cut_and_start(checks, pointsmand, home, recording, rng, started)
    lost, looked_at = rows_lost(home, recording, rng, read)
    checks.check("power: ledger.db alone", lost, f"{looked_at} acknowledged rows looked for after {read} cuts")

    control = record(pointsmand, home / "unsynced", rng, seconds, {**os.environ, **LOSE_ROWS})
    if LOSES_ROWS not in (home / "unsynced" / "daemon.log").read_text():
        checks.skip("power: control run without syncs", "only a debug build can leave the ledger unsynced")
        return
    lost, looked_at = rows_lost(home, control, rng, read)
    faults = [] if lost else ["nothing was lost without syncs, so nothing was shown with them"]
    figure = f"{len(lost)} of {looked_at} acknowledged rows lost, as it must be"
    checks.check("power: control run without syncs", faults, figure)


def record(pointsmand: Path, home: Path, rng: random.Random, seconds: float, environment=None) -> Recording:
    """Runs a daemon on an empty folder under load until a clean stop; trains on the way, but for the control run."""
    home.mkdir()
    write_config(home, main_usd="10", team_usd="0.02")
    state, log, told, faults = home / "state", home / "strace.log", Told(), []
    with Daemon(pointsmand, home, state, before=syscalls.strace(log), environment=environment) as daemon:
        with daemon.channel() as channel:
            load = Load(channel, told, rng, ["t0", "t1", "t2"])
            judged = 0 if environment else JUDGED_TO_TRAIN
            if promises.wait_for(lambda: len(told.acked) >= judged, JUDGED_WITHIN_S) is None:
                faults.append(f"only {len(told.acked)} feedback acknowledged within {JUDGED_WITHIN_S:.0f} s")
            shadow = None if environment else (train(channel), time.time())
            time.sleep(seconds)
            load.stop()
        if daemon.stop() != 0:
            faults.append(f"the recorded daemon did not stop: {last_lines(daemon.log)}")
    events, unseen = syscalls.read(log, home)
    log.unlink()
    return Recording(home, events, told, shadow, faults + unseen + told.faults)


def train(channel) -> str:
    """Makes a candidate of what was judged so far, and the running policy's shadow of it; its version."""
    stub = policy_pb2_grpc.PolicyServiceStub(channel)
    *_, last = stub.Train(policy_pb2.TrainRequest(), timeout=TRAIN_TIMEOUT_S)
    set_shadow(channel, last.policy.version)
    return last.policy.version


def set_shadow(channel, version: str) -> None:
    """Reads the policy's file, so it must be there and whole."""
    request = policy_pb2.SetShadowRequest(version=version)
    policy_pb2_grpc.PolicyServiceStub(channel).SetShadow(request, timeout=TIMEOUT_S)


def figures(recording: Recording) -> str:
    kinds = Counter(event.what for event in recording.events)
    moved = sum(event.what == "synced" and event.path.endswith("/ledger.db") for event in recording.events)
    acked = len(recording.told.acked)
    return f"{kinds['written']} writes, {kinds['synced']} syncs, {moved} of ledger.db itself, {acked} feedback acknowledged"


def moments(recording: Recording, rng: random.Random, count: int) -> list[float]:
    """When to cut, in order."""
    acks = [ack.at for ack in recording.told.acked.values()]
    if recording.shadow:
        # One cut in ten or so is right after it.
        acks += [recording.shadow[1]] * (len(acks) // 4)
    ends = [event.ended for event in recording.events]
    return sorted(rng.choice(acks) if number % 2 else rng.choice(ends) for number in range(count))


def cuts(recording: Recording, rng: random.Random, count: int, to: Path):
    """The folder after each of some cuts: when it was, and how it was chosen."""
    disk, done = syscalls.Disk(recording.home), 0
    for at in moments(recording, rng, count):
        while done < len(recording.events) and recording.events[done].ended <= at:
            disk.do(recording.events[done])
            done += 1
        under_way = [event for event in recording.events[done:] if event.began < at]
        how = disk.rebuild(to, under_way, rng)
        yield at, how
        shutil.rmtree(to)


def cut_and_start(
    checks: Checks, pointsmand: Path, home: Path, recording: Recording, rng: random.Random, count: int
) -> None:
    write_config(home, main_usd="10", team_usd="0.02")
    state, told = home / "cut" / "state", recording.told
    rows, money, ends = [], [], []
    orphans = looked_at = after_training = 0
    began = time.monotonic()
    for number, (at, how) in enumerate(cuts(recording, rng, count, home / "cut")):
        cut = f"cut {number} ({how})"
        try:
            with Daemon(pointsmand, home, state) as daemon:
                with daemon.channel() as channel:
                    keys = sorted((one for one in told.keyed.values() if one[2] <= at), key=lambda one: one[2])
                    found = promises.money_faults(channel, told, at)
                    found += promises.key_faults(channel, keys[-KEYS_LOOKED_AT:])
                    money += [f"{cut}: {fault}" for fault in found]
                    promises.serve(channel)
                    if recording.shadow and recording.shadow[1] <= at:
                        after_training += 1
                        set_shadow(channel, recording.shadow[0])
                if daemon.stop() != 0:
                    ends.append(f"{cut}: the stop was not clean: {last_lines(daemon.log)}")
        except Exception as error:
            ends.append(f"{cut}: {type(error).__name__}: {error}")
            continue
        ends += [f"{cut}: {fault}" for fault in verify(pointsmand, home, state)]
        lost, looked_for, without_trace = missing(state / "ledger.db", told, at)
        rows += [f"{cut}: {fault}" for fault in lost]
        looked_at, orphans = looked_at + looked_for, orphans + without_trace
    ends += [line for line in (home / "daemon.log").read_text(errors="replace").splitlines() if "panicked" in line]
    took = time.monotonic() - began
    figure = f"{looked_at} rows looked for after {count} cuts, {orphans} of them without their trace, {took:.0f} s"
    checks.check("power: acknowledged feedback", rows, figure)
    checks.check("power: money and keys", money, f"{len(told.costs)} costs and {len(told.keyed)} keys at the end")
    figure = f"equal after {count} cuts, the trained policy there after {after_training}"
    checks.check("power: start, service, clean stop, verify", ends, figure)


def rows_lost(home: Path, recording: Recording, rng: random.Random, count: int) -> tuple[list[str], int]:
    """What `ledger.db` alone has lost after some cuts, and how many rows were looked for."""
    lost, looked_at = [], 0
    for number, (at, how) in enumerate(cuts(recording, rng, count, home / "cut")):
        found, looked_for, _ = missing(home / "cut" / "state" / "ledger.db", recording.told, at)
        lost += [f"cut {number} ({how}): {fault}" for fault in found]
        looked_at += looked_for
    return lost, looked_at


def missing(ledger: Path, told: Told, at: float) -> tuple[list[str], int, int]:
    """Acknowledged feedback that the ledger has not, how many were looked for, and how many have no trace."""
    wanted = promises.all_until(told, at)
    if not wanted:
        return [], 0, 0
    if not ledger.is_file():
        return [f"feedback {ack.sequence} is gone with its file" for _, ack in wanted], len(wanted), 0
    opened = sqlite3.connect(ledger)
    try:
        query = "SELECT seq, decision, source, score, orphan FROM feedback"
        rows = {seq: (str(uuid.UUID(bytes=decision)), *rest) for seq, decision, *rest in opened.execute(query)}
        sound = opened.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        rows, sound = {}, str(error)
    opened.close()
    lost = [] if sound == "ok" else [f"ledger.db is damaged: {sound}"]
    orphans = 0
    for (decision, source), ack in wanted:
        found = rows.get(ack.sequence)
        if found is None or found[:3] != (decision, source, ack.score):
            lost.append(f"feedback {ack.sequence} on {decision} is gone: {found}")
        else:
            orphans += found[3]
    return lost, len(wanted), orphans
