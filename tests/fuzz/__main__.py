"""Fuzzes the targets one after another, guided by coverage: `python -m tests.fuzz --seconds 60 --only sse`.

Each target gets a process of its own, because libFuzzer ends it. What it learned stays in the folder `.fuzz`, where the
next run goes on from. An input that breaks a target is written there too, and printed; to see it again:

    python -m tests.fuzz --only sse --input .fuzz/sse-crash-…
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import NAMES, target

FOLDER = Path(__file__).parents[2] / ".fuzz"
SLOWEST_S = 5
"""An input that takes longer is a find: atheris makes the code some ten times slower, so half a second without it."""
MOST_MEMORY_MB = 2048
LONGEST_INPUT = 1024


def main() -> int:
    options, ours = _options()
    if options.inside:
        _fuzz_here(options.only[0], ours)
    if options.input:
        target(options.only[0])(options.input.read_bytes())
        return 0
    FOLDER.mkdir(exist_ok=True)
    seconds = max(1, round(options.seconds / len(options.only)))
    return max(_fuzz(name, seconds) for name in options.only)


def _options() -> tuple[argparse.Namespace, list[str]]:
    """Our options, and libFuzzer's, which only a process of one target gets."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzes the targets, guided by coverage.")
    parser.add_argument("--seconds", type=float, default=120, help="for all targets together (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--input", type=Path, help="try this file alone, on the one target named by --only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options, others = parser.parse_known_args()
    if others and not options.inside:
        parser.error(f"unknown: {' '.join(others)}")
    return options, others


def _fuzz(name: str, seconds: int) -> int:
    """Fuzz one target in a process. Returns 1 if it broke."""
    known = FOLDER / name
    known.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz", "--inside", "--only", name),
        *(f"-max_total_time={seconds}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MEMORY_MB}"),
        *(f"-max_len={LONGEST_INPUT}", "-len_control=10", "-print_final_stats=1"),
        *(f"-artifact_prefix={FOLDER}/{name}-", str(known)),
    ]
    # libFuzzer bounds the time itself; ours is for a target that hangs where it can't.
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    said = done.stdout + done.stderr
    runs, covered = re.search(r"number_of_executed_units: (\d+)", said), re.findall(r"cov: (\d+)", said)
    verdict = "holds" if done.returncode == 0 else "BROKE"
    print(f"{name:12} {verdict}  {runs[1] if runs else '?':>9} inputs  {covered[-1] if covered else '?':>5} branches")
    if done.returncode:
        print(_what_happened(said))
    return int(done.returncode != 0)


def _what_happened(said: str) -> str:
    """The exception and the input, without libFuzzer's report of its progress."""
    telling = (line for line in said.splitlines() if not re.match(r"#\d+\t|stat::|INFO:|WARNING:|0x", line))
    return "\n".join(telling)[-6000:]


def _fuzz_here(name: str, options: list[str]) -> None:
    import atheris  # noqa: PLC0415 - it is only in the fuzzer's own environment

    with atheris.instrument_imports(include=["server", "storage"]):
        fuzz = target(name)
    atheris.Setup([sys.argv[0], *options], fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
