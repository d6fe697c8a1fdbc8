"""Writes the tables of docs/security.md that say what each child may do, from the filters and limits themselves.

.venv/bin/python scripts/write_security_table.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from worker.children import sandbox, seccomp  # noqa: E402
from worker.children.fork_server import MAXIMUM_PROCESSES  # noqa: E402
from worker.settings import DecoderSettings  # noqa: E402
from worker.supervision.memory_budget import FIRST_BYTES  # noqa: E402

PAGE = ROOT / "docs/security.md"
_BEGIN, _END = "<!-- made by scripts/write_security_table.py -->\n", "<!-- end -->\n"
_TELLING = {
    "open": ("open", "openat", "openat2", "creat"),
    "look at a path": ("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "readlink"),
    "make a socket": ("socket", "socketpair", "connect", "bind", "accept4"),
    "start a process": ("fork", "vfork", "clone3", "execve", "execveat"),
    "start a thread": ("clone",),
    "signal": ("kill", "tgkill", "pidfd_send_signal", "rt_sigqueueinfo"),
    "trace, or read another's memory": ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    "lock, lease or change a file": ("flock", "ftruncate", "fchmod", "fchown", "utimensat", "fsetxattr", "fallocate"),
    "make a file in memory": ("memfd_create",),
    "map memory": ("mmap", "mprotect"),
    "change its own limits": ("prlimit64", "setrlimit"),
    "change what it is": ("prctl", "setuid", "capset", "setsid", "unshare", "mount", "chroot"),
}
_ONLY = {
    ("decoder", "signal"): "itself only",
    ("decoder", "map memory"): "not to execute",
    ("decoder", "change its own limits"): "within the hard ones",
    ("model", "open"): "to read; Landlock: its package, and what the processor is",
    ("model", "look at a path"): "yes",
    ("model", "start a thread"): "threads only",
    ("model", "signal"): "itself only",
    ("model", "change its own limits"): "within the hard ones",
    ("model", "change what it is"): "its thread's name",
}


def tables() -> str:
    """Both tables, as they should be."""
    allowed = seccomp.allowed_calls()
    rows = ["| may it | process of images | model child |", "|---|---|---|"]
    for what, calls in _TELLING.items():
        cells = []
        for kind in ("decoder", "model"):
            any_allowed = [name for name in calls if name in allowed[kind]]
            said = _ONLY.get((kind, what), "yes") if any_allowed else "no"
            cells.append(said + (f" ({', '.join(f'`{name}`' for name in any_allowed)})" if any_allowed else ""))
        rows.append(f"| {what} | {cells[0]} | {cells[1]} |")
    decoder = DecoderSettings()
    limits = (
        f"Of about 350 system calls the processes of images have {len(allowed['decoder'])} by name, for all machines "
        f"together, and a model child {len(allowed['model'])}; all others fail with EPERM. A process of images has "
        f"{FIRST_BYTES >> 20} MiB beyond the decoder's own memory, or what its image is granted; "
        f"{decoder.first_cpu_s:g} s of processor time, {decoder.maximum_cpu_s} in the slow lane, which the fork server "
        f"looks at as well; descriptors with numbers below {sandbox._MAXIMUM_OPEN_FILES}; files of "
        f"{sandbox._MAXIMUM_FILE_BYTES >> 20} MiB; no core file. A decoder has {MAXIMUM_PROCESSES} of them at most."
    )
    every = [
        f"{kind}: " + ", ".join(name + ("*" if conditional else "") for name, conditional in sorted(calls.items()))
        for kind, calls in allowed.items()
    ]
    listed = "\n\n".join(textwrap.fill(text, 118, break_long_words=False) for text in (limits, *every))
    return "\n".join(rows) + "\n\n" + listed + "\n\n`*`: with some arguments only.\n"


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    arguments = argparse.ArgumentParser(description="Write the tables of docs/security.md.")
    arguments.add_argument("--check", action="store_true", help="write nothing; the exit status is 1 if it differs")
    given = arguments.parse_args()
    before = PAGE.read_text()
    after = re.sub(
        re.escape(_BEGIN) + ".*?" + re.escape(_END), lambda _: _BEGIN + tables() + _END, before, flags=re.DOTALL
    )
    if given.check:
        return int(before != after)
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
