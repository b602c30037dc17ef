"""Runs the checks and counts: `python -m chaos_checks --pointsmand FILE --folder FOLDER`, see scripts/chaos."""

import argparse
import os
import random
import sys
from pathlib import Path

from . import disk, kills, power
from .checks import Checks

PARTS = {"kills": kills.run, "power": power.run, "disk": disk.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--pointsmand", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    checks = Checks(asked.strict)
    for name, run in PARTS.items():
        if asked.only in (None, name):
            home = asked.folder / name
            home.mkdir()
            run(checks, asked.pointsmand, home, random.Random(f"{asked.seed}/{name}"), asked.quick)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


sys.exit(main())
