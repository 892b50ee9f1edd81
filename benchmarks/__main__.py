"""Every benchmark in turn, each a process of its own: `python -m benchmarks [--quick] [--only NAME ...] [--data PATH]`.

Each prints its table; its JSON is in benchmarks/results/. In full about 30 minutes, most of it the three minutes of each
case of `limits`; `--quick` takes about 8 and measures less. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FULL: dict[str, list[str]] = {
    "evidence": [],
    "enqueue": [],
    "latency": [],
    "throughput": [],
    "fairness": [],
    "outage": [],
    "limits": [],
    "scenarios": [],
    "alerts": [],
    "deliveries": [],
    "kill_alerts": [],
}
QUICK: dict[str, list[str]] = {
    "enqueue": ["--calls", "5000"],
    "latency": ["--calls", "30"],
    "throughput": ["--calls", "1500"],
    "fairness": ["--queued", "2000", "--calls", "10"],
    "outage": ["--calls", "600", "--overloaded", "15", "--silent", "10"],
    "limits": ["--cases", "start", "--window", "45"],
    "scenarios": ["--runs", "64", "--turns", "6", "--processes", "1", "--memory-runs", "200"],
    "alerts": ["--calls", "30"],
    "deliveries": ["--only", "1 of 20 slow"],
    "kill_alerts": ["--kills", "20"],
}


def main() -> int:
    """Run them; 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer calls and shorter windows")
    parser.add_argument("--only", nargs="*", choices=list(FULL), help="these alone")
    parser.add_argument(
        "--data", type=Path, help="folder of labelled calls for `evidence`, which is left out without it"
    )
    options = parser.parse_args()
    chosen = QUICK if options.quick else FULL
    failed = []
    for name in options.only or list(chosen):
        arguments = FULL[name] if name not in chosen else chosen[name]
        if name == "evidence":
            if options.data is None:
                print("\n== evidence: left out, no --data given", flush=True)
                continue
            arguments = ["--data", str(options.data)]
        print(f"\n== {name} {' '.join(arguments)}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
