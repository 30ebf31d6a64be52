"""Do the tests notice? Each mutant breaks one line that a test guards; a mutant that lives is a test that is missing.

    python -m tests.mutants [NAME …]

Each is made in a copy of the tree, so that nothing here is touched. Takes some minutes; not a part of CI.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("server", "storage", "tests", "deploy", "pyproject.toml", "README.md", "Makefile", "CHANGELOG.md", "LICENSE")


@dataclass(frozen=True)
class Mutant:
    """One line, broken."""

    file: str
    old: str
    new: str
    tests: str
    """Those of which at least one must fail: a path, and after a space what `-k` selects."""


MUTANTS = {
    "run a job whose format is too new": Mutant(
        "storage/lua/lease.lua",
        "  return r.err or not (passed_models[r[1]] or is_newer(r[2]))",
        "  return r.err or not passed_models[r[1]]",
        "tests/storage/test_formats.py left_to_it",
    ),
    "reclaim a job whose format is too new": Mutant(
        "storage/lua/lease.lua",
        "  if is_newer(r[15]) then return nil end\n",
        "",
        "tests/storage/test_formats.py reclaimed_by_newer",
    ),
    "open a store whose format is too new": Mutant(
        "storage/open.py",
        "    check_store(newest)\n",
        "",
        "tests/storage/test_formats.py too_new",
    ),
    "count what a response has used at each end that comes late": Mutant(
        "storage/lua/cancel.lua",
        "if TERMINAL[r[1]] then return r[1] == 'cancelled' and 'cancelled' or 'over' end",
        "if TERMINAL[r[1]] and r[1] ~= 'cancelled' then return 'over' end",
        "tests/storage/test_usage.py told_so_far",
    ),
    "count a native response whenever it is polled": Mutant(
        "storage/lua/count_usage.lua",
        "if redis.call('SET', token, 'counted', 'PX', token_ms, 'NX') then",
        "if true then",
        "tests/storage/test_usage.py token_counts_once",
    ),
    "forget what a run had told when it is cancelled": Mutant(
        "storage/lua/cancel.lua",
        "spent = told(r[13], untold)",
        "spent = untold",
        "tests/storage/test_usage.py told_so_far",
    ),
    "give what is to be counted another token when it is sent again": Mutant(
        "server/usage.py",
        "        self._batch = self._batch or self._take()",
        "        self._batch = [Counted(*(getattr(c, n) for n in ('owner', 'day', 'spent')), secrets.token_hex(8), 1)"
        " for c in self._batch] or self._take()",
        "tests/server/test_usage.py counted_once",
    ),
    "keep a client's key beyond the end of its run": Mutant(
        "storage/lua/finish.lua",
        "'base', 'verdict', 'client_key')",
        "'base', 'verdict')",
        "tests/storage/test_responses.py clients_key",
    ),
    "read a response for a guest with a key of ours": Mutant(
        "server/api/references.py",
        "    if principal.is_guest and not deployment.forwards_key:",
        "    if False:",
        "tests/scenarios/test_client_keys.py key_of_ours",
    ),
    "send the master key to a provider": Mutant(
        "server/keyring.py",
        "key = None if principal.is_master and not self.empty else _presented(headers)",
        "key = _presented(headers)",
        "tests/server/test_keyring.py not_for_providers",
    ),
    "run a guest's job without its key": Mutant(
        "server/jobs/run.py",
        "return bool(lease.client_key) or is_guest(lease.owner)",
        "return bool(lease.client_key)",
        "tests/scenarios/test_client_keys.py key_is_gone",
    ),
    "reclaim without a guard": Mutant(
        "storage/lua/lease.lua",
        "if #ran_out > 0 and now > reclaim_until then return {now, 'stale', aside} end",
        "",
        "tests/storage/test_jobs.py may_not_be_reclaimed",
    ),
    "reclaim right after an outage": Mutant(
        "server/jobs/leaser.py",
        "            self._from = now + self._lease_s\n        return was_away",
        "            pass\n        return was_away",
        "tests/server/test_leaser.py while_the_store_is_away",
    ),
    "reclaim however late the call is run": Mutant(
        "server/jobs/leaser.py",
        "return self._answered_ms + min(FRESH_MS, int(self._lease_s * 1000))",
        "return 2**53",
        "tests/server/test_leaser.py",
    ),
    "reclaim while the store is away, or right after our start": Mutant(
        "server/jobs/leaser.py",
        "if self._away or now < self._from:",
        "if False:",
        "tests/server/test_leaser.py",
    ),
    "no second call when the first was stale": Mutant(
        "server/jobs/leaser.py",
        "            if not answer.stale:\n                return answer.lease",
        "            return answer.lease",
        "tests/server/test_leaser.py too_late",
    ),
    "clear the event after the read": Mutant(
        "server/hub.py",
        "                    yield await read()\n",
        "                    yield (await read(), changed.clear())[0]\n",
        "tests/server/test_hub.py during_a_read",
    ),
    "repeat a proxied POST after a timeout": Mutant(
        "server/api/relay.py",
        "    return not isinstance(error, UpstreamTimeout)",
        "    return True",
        "tests/faults/test_upstreams.py timed_out_is_not_repeated",
    ),
    "end a stream cleanly that a failover has cut": Mutant(
        "server/responses/follow.py",
        "        if self._gave and self.last > reading.record.cursor.last:",
        "        if False:",
        "tests/scenarios/test_streaming.py failover",
    ),
    "a broken service ends nothing": Mutant(
        "server/process/app.py",
        "            broken.set()",
        "            pass",
        "tests/faults/test_broken_records.py service_that_breaks",
    ),
    "a broken service ends with status 0": Mutant(
        "server/process/serve.py",
        "    if broke:\n        raise ServiceBroke",
        "    if broke:\n        return",
        "tests/faults/test_processes.py service_that_breaks",
    ),
    "no bound to a journal": Mutant(
        "server/jobs/journal.py",
        "self._bytes > PENDING_BYTES:",
        "False:",
        "tests/server/test_bounds.py no_more_than_its_part",
    ),
    "no bound to all journals": Mutant(
        "server/jobs/committer.py",
        "        return self._pending_bytes > ALL_PENDING_BYTES",
        "        return False",
        "tests/server/test_bounds.py all_journals",
    ),
    "no bound to folds": Mutant(
        "server/responses/view.py",
        "while len(self._folds) > CACHED_FOLDS or (self._size > CACHED_BYTES and len(self._folds) > 1):",
        "while False:",
        "tests/server/test_bounds.py folds",
    ),
    "no bound to the number of folds": Mutant(
        "server/responses/view.py",
        "while len(self._folds) > CACHED_FOLDS or (self._size",
        "while (self._size",
        "tests/server/test_bounds.py folds",
    ),
    "no bound to the bytes of folds": Mutant(
        "server/responses/view.py",
        " or (self._size > CACHED_BYTES and len(self._folds) > 1):",
        ":",
        "tests/server/test_bounds.py folds",
    ),
    "no bound to the number of tails": Mutant(
        "server/responses/tails.py",
        "        while len(self._tails) > TAILS:",
        "        while False:",
        "tests/server/test_bounds.py tails",
    ),
    "no bound to a tail": Mutant(
        "server/responses/tails.py",
        "        while self._size > TAIL_BYTES:",
        "        while False:",
        "tests/server/test_bounds.py tails",
    ),
    "a late batch sets fields back": Mutant(
        "storage/lua/append.lua",
        "local repeated = tonumber(batch) <= (tonumber(r[5]) or 0)",
        "local repeated = false",
        "tests/storage/test_jobs.py sets_no_field_back",
    ),
    "a listener without rights fills the log": Mutant(
        "storage/notify.py",
        "if failures & (failures - 1) <= 0:",
        "if True:",
        "tests/storage/test_notify.py may_not_hear",
    ),
    "a listener without rights asks for ever as often": Mutant(
        "storage/notify.py",
        "longest_pause_s = LONGEST_PAUSE_OF_REFUSED_S if refused else LONGEST_PAUSE_S",
        "longest_pause_s = LONGEST_PAUSE_S",
        "tests/storage/test_notify.py may_not_hear",
    ),
    "log what is no output at once": Mutant(
        "server/protocol/intake.py",
        "if event.carries_output or",
        "if True or",
        "tests/faults/test_before_output.py nobody",
    ),
    "keep keepalives": Mutant(
        "server/protocol/intake.py",
        "or is_transport(parsed.type):",
        "or False:",
        "tests/faults/test_before_output.py keepalives",
    ),
    "send a client's idempotency key as it is": Mutant(
        "server/api/headers.py",
        '        found["Idempotency-Key"] = idempotency_key(secret, owner, key)',
        '        found["Idempotency-Key"] = key',
        "tests/scenarios/test_secrets.py idempotency",
    ),
    "hand a job back as if it could not wait": Mutant(
        "storage/lua/release.lua",
        "is_count(r[7]) and r[7] or r[4]",
        "r[4]",
        "tests/storage/test_jobs.py released",
    ),
    "tell a provider of the completion window": Mutant(
        "server/protocol/requests.py",
        'if name not in ("background", BACKGROUND_OPTIONS)}',
        'if name != "background"}',
        "tests/scenarios/test_priorities.py told_of_no_window",
    ),
    "drop the webhooks that a process leaves behind": Mutant(
        "storage/lua/claim_deliveries.lua",
        "redis.call('ZADD', due, now + claim_ms, name)",
        "redis.call('ZREM', due, name)",
        "tests/faults/test_webhook_outage.py",
    ),
    "show the secrets of tools": Mutant(
        "server/protocol/snapshot.py",
        "for tool in shown_tools(tools)",
        "for tool in tools",
        "tests/scenarios/test_secrets.py cached_mode",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"all, or some of: {', '.join(MUTANTS)}")
    chosen = parser.parse_args().names or list(MUTANTS)
    lived = [name for name in chosen if not killed(name, MUTANTS[name])]
    print(f"{len(chosen) - len(lived)} of {len(chosen)} were noticed")
    return int(bool(lived))


def killed(name: str, mutant: Mutant) -> bool:
    """Whether a test fails on the broken line, and none on the right one."""
    with tempfile.TemporaryDirectory(prefix="pollux-mutant-") as folder:
        copy = Path(folder)
        for part in COPIED:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
        right = passes(copy, mutant.tests)
        file = copy / mutant.file
        text = file.read_text()
        assert text.count(mutant.old) == 1, f"{name}: the line is not there, or not once"
        file.write_text(text.replace(mutant.old, mutant.new))
        noticed = right and not passes(copy, mutant.tests)
    print(f"{'noticed' if noticed else 'LIVES' if right else 'FAILS UNBROKEN':15}{name}", flush=True)
    return noticed


def passes(copy: Path, tests: str) -> bool:
    path, _, selected = tests.partition(" ")
    command = [sys.executable, "-m", "pytest", "-q", "-x", path, *(["-k", selected] if selected else [])]
    run = subprocess.run(command, cwd=copy, capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert run.returncode in (0, 1), run.stdout.decode() + run.stderr.decode()
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
