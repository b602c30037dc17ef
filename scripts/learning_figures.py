#!/usr/bin/env python3
"""Measures learning on recorded outcomes and synthetic streams, each figure beside its reference.

scripts/bench learn [--quick] [--plot FILE.svg] runs it with a release build. Data: $POINTSMAN_SHARED (default ../shared),
which is no part of this project; what is absent is skipped and said. --quick takes fewer seeds.
"""
import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

SHARED = Path(os.environ.get("POINTSMAN_SHARED", "../shared"))
POOL12 = (
    "gpt-4o-2024-05-13,gemini-1.5-pro-002,gemini-1.5-flash-002,Meta-Llama-3_1-70B-Instruct,deepseek-v2-chat,"
    "jamba-1.5-large,Qwen1.5-72B-Chat,Meta-Llama-3_1-8B-Instruct,mathstral-7B,Mixtral-8x7B-Instruct-v0.1,"
    "Phi-3-mini-4k-instruct,c4ai-command-r-v01"
)
POOL10 = POOL12.split(",", 2)[2]
THREE = "meta-llama/llama-3.1-8b-instruct,mistralai/mistral-large-2512,google/gemini-2.5-pro"
# name, file, pool, what a supervised router must gain over best single, what one that is told the task gains
SETS = [
    ("mmlu_pro, 12 models", "mmlu_pro", POOL12, 0.014, 0.026),
    ("mmlu_pro, 10 models", "mmlu_pro", POOL10, 0.023, 0.019),
    ("llmrouter, 9 models", "llmrouter_11tasks", "", 0.028, 0.032),
    ("paretobandit, 4 models", "paretobandit_k4", "", 0.0, None),
]
CEILINGS = [2.9e-5, 8.3e-5, 2.3e-4, 6.6e-4, 1.9e-3, 5.3e-3, 1.5e-2]
# data/README.md of the shared folder: published on other rows of the same sets, for orientation.
PUBLISHED = [0.793, 0.813, 0.859, 0.898, 0.917, 0.924, 0.929]
PROTOTYPE = [0.794, 0.829, 0.881, 0.922, 0.925, 0.930, 0.935]
STREAMS = [("stationary", 0, 1430), ("swap", 0, 1390), ("costjump", 0, 1340), ("stationary", 1000, 1560)]


class Bench:
    """Runs the daemon's offline commands."""

    def __init__(self, pointsmand, seeds):
        self.pointsmand, self.seeds = pointsmand, seeds

    def json(self, *words):
        done = subprocess.run([self.pointsmand, *map(str, words), "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def replay(self, file, pool, policy, *words, seeds=None):
        pool = ["--pool", pool] if pool else []
        return self.json(
            "replay", "--outcomes", file, *pool, "--policy", policy, "--seeds", seeds or self.seeds, *words
        )


def recorded(name):
    file = SHARED / "data" / f"{name}.jsonl.gz"
    if not file.is_file():
        print(f"skipped: {file} is absent, set POINTSMAN_SHARED")
        return None
    return file


def supervised(bench):
    print("\nSupervised: 80/20, task hidden, mean gain over the best single model of the training rows")
    print(f"{'set':24}{'gain':>9}{'aim':>8}{'told task':>11}{'worst seed':>12}")
    for name, file, pool, aim, told in SETS:
        if not (file := recorded(file)):
            continue
        found = bench.replay(file, pool, "classifier", "--train-fraction", 0.8)
        gains = [run["score"] - run["single_score"] for run in found["runs"]]
        mean = sum(gains) / len(gains)
        print(f"{name:24}{mean:>+9.4f}{aim:>+8.3f}{told or float('nan'):>+11.3f}{min(gains):>+12.4f}")


def cold(bench):
    print("\nCold start, online, one call, last 20 %")
    print(f"{'set':24}{'bandit':>9}{'best single':>13}{'context-free':>14}{'delay 1000':>12}{'feedback .3':>13}")
    for name, file, pool, _, _ in SETS:
        if not (file := recorded(file)):
            continue
        plain = bench.replay(file, pool, "bandit")
        late = bench.replay(file, pool, "bandit", "--delay", 1000)
        rare = bench.replay(file, pool, "bandit", "--feedback-rate", 0.3)
        print(
            f"{name:24}{plain['score_last20pct']:>9.4f}{plain['best_single']['score']:>13.4f}"
            f"{plain['context_free_last20pct']:>14.4f}{late['score_last20pct']:>12.4f}{rare['score_last20pct']:>13.4f}"
        )


def folds(file, parts, seed=1):
    """The rows of a file, shuffled, in so many parts."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [line for line in lines if line.strip()]
    random.Random(seed).shuffle(rows)
    return [rows[part::parts] for part in range(parts)]


def written(folder, name, rows):
    path = Path(folder) / f"{name}.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(rows)
    return path


def budget(bench, seeds):
    """Warm on four folds, routed on the fifth; returns the points of the plot."""
    if not (file := recorded("paretobandit_k4")):
        return []
    print("\nBudget: paretobandit, three models, warm on four folds, routed on the fifth")
    print(f"{'ceiling USD':>12}{'score':>9}{'mix2':>9}{'used':>8}{'used max':>10}{'published':>11}{'prototype':>11}")
    points, parts = [], folds(file, 5)
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for at, part in enumerate(parts):
            rest = [row for other, rows in enumerate(parts) if other != at for row in rows]
            pairs.append((written(folder, f"fold{at}", part), written(folder, f"rest{at}", rest)))
        for ceiling, published, prototype in zip(CEILINGS, PUBLISHED, PROTOTYPE):
            found, mixed = [], []
            for routed, warm in pairs:
                words = ("--warm", warm, "--budget-per-request", ceiling)
                found.append(bench.replay(routed, THREE, "hybrid", *words, seeds=seeds))
                mixed.append(bench.replay(routed, THREE, "mix2", *words, seeds=1))
            mean = lambda of, key: sum(one[key] for one in of) / len(of)
            score, mix = mean(found, "score_mean"), mean(mixed, "score_mean")
            used = mean(found, "budget_utilisation")
            used_max = max(one["budget_utilisation_max"] for one in found)
            print(
                f"{ceiling:>12.1e}{score:>9.4f}{mix:>9.4f}{used:>8.3f}{used_max:>10.3f}{published:>11.3f}{prototype:>11.3f}"
            )
            points.append((ceiling, score, mix, published))
    return points


def drift(bench, seeds):
    if not (file := recorded("paretobandit_k4")):
        return
    print("\nDrift at a ceiling of 6.6e-4 USD: warm on two folds, three routed, in three phases")
    dear, middle = THREE.split(",")[2], THREE.split(",")[1]
    parts = folds(file, 5)
    with tempfile.TemporaryDirectory() as folder:
        warm = written(folder, "warm", parts[0] + parts[1])
        rows = parts[2] + parts[3] + parts[4]
        routed, third = written(folder, "routed", rows), len(rows) // 3
        changes = {
            "dearest ten times cheaper, and back": (f"--reprice={dear}@{third}=0.1", f"--reprice={dear}@{2 * third}=1"),
            "middle one worse by .3, and back": (f"--degrade={middle}@{third}=0.3", f"--degrade={middle}@{2 * third}=0"),
        }
        for name, words in changes.items():
            found = bench.replay(
                routed, THREE, "hybrid", "--warm", warm, "--budget-per-request", 6.6e-4, *words, seeds=seeds
            )
            phases = ", ".join(
                f"{phase['score_mean']:.3f} (used {phase['budget_utilisation']:.3f})" for phase in found["phases"]
            )
            print(f"{name}: {phases}")


def streams(bench, folder):
    if not folder:
        print("\nskipped: the streams; give --streams FOLDER, written by bench/make_streams.py of the shared folder")
        return
    print("\nStreams: pseudo-regret, mean and standard deviation of policy seeds, without and with a 1 % floor")
    print(f"{'stream':>12}{'delay':>7}{'regret':>9}{'sd':>7}{'aim':>7}{'with floor':>12}{'rounds/s':>10}")
    for name, delay, aim in STREAMS:
        file = Path(folder) / f"stream_{name}.bin"
        words = ("streams", file, "--seeds", 2 * bench.seeds, "--delay", delay)
        plain, floored = bench.json(*words), bench.json(*words, "--floor", 0.01)
        print(
            f"{name:>12}{delay:>7}{plain['regret']:>9.0f}{plain['regret_std']:>7.0f}{aim:>7}"
            f"{floored['regret']:>12.0f}{plain['rounds_per_s']:>10.0f}"
        )


def plot(points, file):
    """Score over ceiling as a small SVG, readable on light and dark ground."""
    import math

    width, height, left, bottom = 640, 340, 56, 44
    scores = [score for point in points for score in point[1:]]
    low, high = min(scores) - 0.01, max(scores) + 0.01
    logs = [math.log10(point[0]) for point in points]
    x = lambda log: left + (log - logs[0]) / (logs[-1] - logs[0]) * (width - left - 130)
    y = lambda score: height - bottom - (score - low) / (high - low) * (height - bottom - 20)
    text = lambda at, up, said, anchor="middle", ink="#777": (
        f'<text x="{at:.0f}" y="{up:.0f}" text-anchor="{anchor}" fill="{ink}">{said}</text>'
    )
    parts = []
    for tick in range(math.ceil(low * 50), math.floor(high * 50) + 1):
        parts.append(f'<path d="M{left} {y(tick / 50):.1f}H{width - 130}" stroke="#8884" fill="none"/>')
        parts.append(text(left - 8, y(tick / 50) + 4, f"{tick / 50:.2f}", "end"))
    for log, point in zip(logs, points):
        parts.append(text(x(log), height - bottom + 18, f"{point[0]:.1e}"))
    parts.append(text((left + width - 130) / 2, height - 6, "ceiling of the mean cost of a request, US dollars"))
    series = [("Pointsman", "#1a7f5a", 1), ("best mix of two", "#b0631b", 2), ("ParetoBandit", "#6a6fd1", 3)]
    ends = sorted(((y(points[-1][at]), name, ink) for name, ink, at in series))
    for name, ink, at in series:
        line = " ".join(f"{x(log):.1f},{y(point[at]):.1f}" for log, point in zip(logs, points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{ink}" stroke-width="2"/>')
    before = 0.0
    for up, name, ink in ends:
        before = max(up, before + 15)
        parts.append(text(x(logs[-1]) + 8, before + 4, name, "start", ink))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    Path(file).write_text(head + "".join(parts) + "</svg>\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pointsmand", required=True, help="the program, built in the release profile")
    parser.add_argument("--streams", help="folder of the binary streams")
    parser.add_argument("--quick", action="store_true", help="three seeds in place of ten")
    parser.add_argument("--plot", help="where to write the plot of score over budget")
    parser.add_argument("--only", choices=["supervised", "cold", "budget", "drift", "streams"], help="one part alone")
    args = parser.parse_args()
    bench = Bench(args.pointsmand, 3 if args.quick else 10)
    seeds = 3 if args.quick else 20
    wanted = lambda part: args.only in (None, part)
    if wanted("supervised"):
        supervised(bench)
    if wanted("cold"):
        cold(bench)
    points = budget(bench, seeds) if wanted("budget") else []
    if wanted("drift"):
        drift(bench, seeds)
    if wanted("streams"):
        streams(bench, args.streams)
    if args.plot and points:
        plot(points, args.plot)


if __name__ == "__main__":
    main()
