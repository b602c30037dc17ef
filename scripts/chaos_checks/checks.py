"""Counts what held and what did not, one line each."""

# Faults that are printed of one check; the rest is only counted.
FAULTS_SHOWN = 8


class Checks:
    """What was checked so far."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.passed = 0
        self.failed = 0

    def check(self, name: str, faults: list[str], figures: str = "") -> None:
        """One line: passed without faults, else failed with them."""
        if faults:
            self.failed += 1
            print(f"FAILED  {name}: {len(faults)} faults; {figures}", flush=True)
            for fault in faults[:FAULTS_SHOWN]:
                print(f"        {fault}", flush=True)
        else:
            self.passed += 1
            print(f"passed  {name}: {figures}", flush=True)

    def skip(self, name: str, why: str) -> None:
        """What this machine or build cannot run."""
        print(f"SKIPPED {name}: {why}", flush=True)

    def miss(self, name: str, why: str) -> None:
        """What anybody can install: skipped, and a failure in strict use."""
        if self.strict:
            self.check(name, [why])
        else:
            self.skip(name, why)
