"""What the tests of hostile files share: running the command line under watch, and judging what it touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WATCHER = Path(__file__).with_name("watched.py")
HOSTILE = ROOT / "fixtures" / "hostile"

_LIBRARIES = tuple(
    {
        os.path.realpath(p)
        for p in (
            sys.prefix,
            sys.base_prefix,
            *(sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")),
            *(p for p in sys.path if p and ("site-packages" in p or "dist-packages" in p)),
            "/lib",
            "/lib64",
            "/usr/lib",
            "/usr/lib64",
            "/usr/share/zoneinfo",
            "/usr/share/locale",
        )
    }
)
_SYSTEM = re.compile(
    r"^(/proc/(self|\d+|meminfo|cpuinfo|sys|stat|filesystems)\b.*|/sys/(devices/system|fs/cgroup|kernel/mm)\b.*"
    r"|/dev/(null|urandom|tty)|/(usr/lib|etc)/ssl/openssl\.cnf"
    r"|/etc/(nsswitch\.conf|passwd)"  # the interpreter looks for its user's home directory when it starts; no sample names them
    r"|/etc/(ld\.so\.(cache|preload)|localtime|timezone|locale\.alias))$"
)
# What changes files, starts programs or talks to anybody, as the interpreter's audit events are called.
FORBIDDEN = re.compile(
    r"^(socket\.(?!__new__$)|urllib\.|os\.(system|exec|posix_spawn|spawn|fork|forkpty|startfile|remove|unlink|rename|link|symlink|"
    r"mkdir|rmdir|chmod|chown|truncate|mkfifo|mknod|setxattr)|shutil\.|pickle\.|tempfile\.|ctypes\.(?!dlopen$)|code\.__new__)"
)


def watched(runs: list[list[str]], room: Path) -> list[dict[str, Any]]:
    """Run command lines in one watched process with `room` as its directory; one result each, with its audit events."""
    out = room / "watched.json"
    done = subprocess.run(
        [sys.executable, str(WATCHER), str(out), json.dumps(runs)],
        cwd=room,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results: list[dict[str, Any]] = json.loads(out.read_text())
    out.unlink()
    return results


def harmless(path: str, *allowed: Path) -> bool:
    """Whether opening this path is the interpreter's, the package's or the asked-for file's business."""
    real = os.path.realpath(path)
    if _SYSTEM.match(path) or _SYSTEM.match(real):
        return True
    places = (*_LIBRARIES, str(ROOT / "ckptdoctor"), str(ROOT / "templates"), *(os.path.realpath(a) for a in allowed))
    return any(real == p or real.startswith(p + os.sep) for p in places)


def offences(events: list[list[str]], *allowed: Path) -> list[list[str]]:
    """The audit events that reading a checkpoint must not cause."""
    found = []
    for event in events:
        name, *words = event
        if FORBIDDEN.match(name):
            bad = True
        elif name == "open":
            # Settings are looked for in every directory above the current one: that is ours.
            bad = not (harmless(words[0], *allowed) or os.path.basename(words[0]) == "pyproject.toml")
        elif name == "exec":
            code = words[0]
            bad = not (
                code.startswith(("<string>", "<template>", "<frozen ")) or harmless(code, ROOT / "tests" / "security")
            )
        elif name == "subprocess.Popen":
            bad = not re.search(
                r"'-I', '-S', '-B', '[^']*/ckptdoctor/checkpoints/(h5|orbax)_child\.py'(, '\d+')?\]$", words[1]
            )
        else:
            bad = False
        if bad:
            found.append(event)
    return found


@cache
def strace() -> str | None:
    """Path of a strace that may trace here, None where there is none."""
    tool = shutil.which("strace")
    if tool is None:
        return None
    probe = subprocess.run([tool, "-f", "-o", os.devnull, "true"], capture_output=True, check=False)
    return tool if probe.returncode == 0 else None


_CALL = re.compile(r'^\d+ +(\w+)\((?:AT_FDCWD(?:<[^>]*>)?, |\d+(?:<[^>]*>)?, )?"((?:[^"\\]|\\.)*)"(.*)$')


def system_calls(trace: Path) -> tuple[list[str], list[str], list[str]]:
    """(paths opened, programs started, calls that reached for the network) of an strace output file."""
    opened, started, network = [], [], []
    for line in trace.read_text(errors="replace").splitlines():
        if "/nscd/" in line:
            continue  # the C library asks its own cache for the user's name
        if re.match(r"^\d+ +(connect|bind|sendto|sendmsg)\(", line) or re.match(r"^\d+ +socket\(AF_INET", line):
            network.append(line)
        elif (call := _CALL.match(line)) and " = -1 " not in call.group(3):
            if call.group(1).startswith("exec"):
                started.append(call.group(2))
            elif call.group(1).startswith("open"):
                opened.append(call.group(2))
    return opened, started, network
