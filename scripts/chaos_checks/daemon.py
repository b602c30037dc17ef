"""A daemon as a process: its configuration, its start, its ends.

The world has two quick models, one that fails now and then, one that always does, and one that takes its time. Money is
short: the main budget is raised by small steps while the load runs, and each team has little.
"""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import grpc

TOPICS = """
seed = 7
labels = ["A", "B"]
distractor_correlation = 0.5
topic_word_share = 0.6
common_words = ["the", "of", "which"]
[[topic]]
name = "law"
share = 0.5
words = ["contract", "clause", "jury"]
[[topic]]
name = "code"
share = 0.5
words = ["pointer", "mutex", "array"]
"""
# Name: skill in law, skill in code, failure rate, latency in ms.
WORLDS = {
    "quick": {"left": (0.95, 0.4, 0.0, 8), "right": (0.4, 0.95, 0.0, 12)},
    "broken": {"flaky": (0.7, 0.7, 0.3, 10), "brick": (0.5, 0.5, 1.0, 5)},
    "slow": {"snail": (0.9, 0.9, 0.0, 400)},
}
MODELS = ["left", "right", "flaky", "brick", "snail"]
BUDGETS = """
[budget]
name = "global"
amount_usd = "{main}"
window = "total"
[[budgets]]
name = "teams"
scope = "tag:team=*"
amount_usd = "{team}"
window = "total"
[[budgets]]
name = "free"
scope = "tag:plan=free"
amount_usd = "{team}"
window = "total"
"""
START_TIMEOUT_S = 60
END_TIMEOUT_S = 60


def write_config(home: Path, main_usd: str, team_usd: str) -> None:
    """Writes the configuration and its worlds."""
    config = '[server]\nlisten = "127.0.0.1:0"\n' + BUDGETS.format(main=main_usd, team=team_usd)
    for world, models in WORLDS.items():
        text = TOPICS
        for name, (law, code, failure_rate, latency_ms) in models.items():
            text += (
                f'[[model]]\nname = "{name}"\nfamily = "{name}"\ninput_usd_per_million_tokens = "1"\n'
                f'output_usd_per_million_tokens = "2"\ntokens_out = 10\nlatency_ms = {latency_ms}\n'
                f"failure_rate = {failure_rate}\nskill = {{ law = {law}, code = {code} }}\n"
            )
        (home / f"{world}.toml").write_text(text)
        config += f'[[backend]]\nname = "{world}"\nkind = "simulated"\nworld = "{world}.toml"\nlatency_scale = 1.0\n'
    (home / "pointsman.toml").write_text(config)


class Daemon:
    """A process of its own; a kill is `kill -9`. With a command `before` it, it is that one's only child."""

    def __init__(self, pointsmand: Path, home: Path, state: Path, *, before=(), environment=None) -> None:
        self.log, self.is_child = home / "daemon.log", bool(before)
        command = [*before, pointsmand, "serve", "--config", home / "pointsman.toml", "--state-dir", state]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self.address = ""

    def ready(self) -> bool:
        """Waits for the line that says so; false where it ended before."""
        line = self.process.stdout.readline()
        if " listening on " not in line:
            return False
        self.address = line.split()[3]
        return True

    @contextlib.contextmanager
    def channel(self):
        with grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", 64 << 20)]) as channel:
            grpc.channel_ready_future(channel).result(timeout=START_TIMEOUT_S)
            yield channel

    def signal(self, number: int = signal.SIGTERM) -> None:
        if not self.is_child:
            self.process.send_signal(number)
        elif self.process.poll() is None:
            pid = self.process.pid
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), number)

    def kill(self) -> None:
        """Ends it as a crash does."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> int:
        """Drains it; its exit code."""
        self.signal()
        try:
            return self.process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -1

    def __enter__(self) -> "Daemon":
        if not self.ready():
            self.kill()
            raise RuntimeError(f"the daemon did not start: {last_lines(self.log)}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def verify(pointsmand: Path, home: Path, state: Path) -> list[str]:
    """What `pointsmand verify` finds."""
    command = [pointsmand, "verify", "--config", home / "pointsman.toml", "--state-dir", state]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [f"verify: {(done.stdout + done.stderr).strip()}"]


def last_lines(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-3:])
