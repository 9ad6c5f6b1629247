"""What programs give in a sandbox, what they cannot do there, and where none can be made."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from editloop.errors import SandboxError
from editloop.sandbox import Execution, Program, Sandbox


def called(sandbox: Sandbox, body: str, *arguments: object) -> Execution:
    """Run `def f(*arguments)` with this body, and call it once."""
    code = "def f(*arguments):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    return sandbox.run([Program(code, "f", (arguments,))])[0]


def attempted(sandbox: Sandbox, body: str) -> str:
    """What a body that ends with `return` gives; `raised NAME` for an exception."""
    found = called(sandbox, body)
    assert found.done, found
    return found.values[0]


def test_a_call_gives_the_repr_of_its_value_and_an_exception_its_name(sandbox):
    code = "def f(x):\n    return 10 // x"
    (found,) = sandbox.run([Program(code, "f", ((5,), (0,), ("a",)))])
    assert found.values == ("2", "raised ZeroDivisionError", "raised TypeError")
    assert found.gives(("2", "raised ZeroDivisionError", "raised TypeError"))
    assert not found.gives(("2.0", "raised ZeroDivisionError", "raised TypeError"))  # another type
    assert not found.gives(("2",))


def test_arguments_keep_their_types(sandbox):
    given = ([1, (2, "drei")], {"ä": None}, 1.5, True)
    (found,) = sandbox.run([Program("def f(*a):\n    return a", "f", (given,))])
    assert found.values == (repr(given),)


def test_a_script_passes_if_it_runs_to_its_end(sandbox):
    scripts = [
        "assert 1 + 1 == 2",
        "assert 1 + 1 == 3, 'wrong'",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
    ]
    found = sandbox.run([Program(script) for script in scripts])
    assert [each.status for each in found] == ["done", "failed", "failed", "crashed"]
    assert found[1].detail == "AssertionError: wrong"
    assert found[2].detail == "SystemExit: 0"


def test_programs_keep_their_order_and_see_nothing_of_each_other(sandbox):
    leave = "open('/tmp/left', 'w').write('x')\ndef f(n):\n    import os\n    return n, os.listdir('/tmp')"
    found = sandbox.run([Program(leave, "f", ((n,),)) for n in range(6)])
    assert [each.values for each in found] == [(f"({n}, ['left'])",) for n in range(6)]


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("x = '\0'", "failed", "null bytes"),
        ("def f(:", "failed", "SyntaxError"),
        ("x = 1", "failed", "no function f"),
        ("def g(): return 1", "failed", "no function f"),
        ("x = {}['f']", "failed", "KeyError"),
        ("x = " + "(" * 50_000 + ")" * 50_000, "failed", "SyntaxError"),
        ("x = " + "-" * 100_000 + "1", None, None),
        ("x = " + "f(" * 200 + ")" * 200, "failed", None),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E", "failed", "E"),
        ("x = 1\n" * 200_000, "refused", "a program of 1171 KiB, where 256 are allowed"),
        ("\ud800", "failed", None),
    ],
)
def test_code_that_is_none_is_told_in_a_line(sandbox, code, status, detail):
    found = sandbox.run([Program(code, "f", ((),))])[0]
    assert found.status == status or (status is None and found.status in ("failed", "crashed", "timeout"))
    assert detail is None or detail in found.detail
    assert "\n" not in found.detail
    assert len(found.detail) < 250


def test_an_endless_loop_a_long_sleep_and_a_waiting_thread_end(make_sandbox):
    sandbox = make_sandbox(seconds=1.5)
    assert called(sandbox, "while True: pass").status == "timeout"
    assert called(sandbox, "import time; time.sleep(60)").status == "timeout"
    assert (
        called(
            sandbox, "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
        ).status
        == "timeout"
    )
    # A thread that goes on does not hold the answer back.
    found = called(
        sandbox, "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nreturn 1"
    )
    assert found.values == ("1",)


def test_processor_time_is_limited(make_sandbox):
    found = called(make_sandbox(seconds=20, cpu_seconds=1), "while True: pass")
    assert found.status == "crashed"
    assert found.seconds < 15


def test_recursion_and_memory_end_in_exceptions(sandbox):
    assert attempted(sandbox, "return f()") == "raised RecursionError"
    assert attempted(sandbox, "return len(bytearray(2 ** 30))") == "raised MemoryError"
    assert attempted(sandbox, "return len([0] * 2 ** 28)") == "raised MemoryError"


def test_a_crash_of_the_interpreter_is_none_of_ours(sandbox):
    found = called(sandbox, "import ctypes\nctypes.string_at(0)")
    assert found.status == "crashed"
    assert called(sandbox, "return 1").values == ("1",)


def test_a_fork_bomb_is_bounded_and_leaves_nothing(make_sandbox):
    sandbox = make_sandbox(seconds=3, processes=8)
    marker = f"marker-{uuid.uuid4()}"
    sandbox._command.append(marker)
    bomb = """
    import os, time
    made = 0
    while made < 500:
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            while True:
                try:
                    os.fork()
                except OSError:
                    time.sleep(0.01)
        made += 1
    return made
    """
    found = called(sandbox, bomb)
    assert found.status == "timeout" or int(found.values[0]) < 8
    assert not [p for p in psutil.process_iter() if marker in _cmdline(p)]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_program_that_is_ended_while_it_starts_leaves_nothing(sandbox):
    """Bubblewrap's child is there before it has asked to die with its parent."""
    marker = f"marker-{uuid.uuid4()}"
    sandbox = Sandbox()
    sandbox._command.append(marker)
    sleeper = Program("import time\ntime.sleep(60)")
    for milliseconds in range(2, 50, 3):
        assert sandbox._run(sleeper, milliseconds / 1000).status == "timeout"
    time.sleep(0.2)
    assert not [p for p in psutil.process_iter() if marker in _cmdline(p)]


def test_memory_that_belongs_to_no_process_is_refused(sandbox):
    shared = "import ctypes\nreturn ctypes.CDLL(None).shmget(0, 2 ** 28, 0o1666)"
    assert attempted(sandbox, shared) == "-1"
    hidden = "import os\nreturn os.memfd_create('x')"
    assert attempted(sandbox, hidden) == "raised PermissionError"
    queue = "import ctypes\nreturn ctypes.CDLL(None).msgget(0, 0o1666)"
    assert attempted(sandbox, queue) == "-1"


def test_zombies_and_threads_are_bounded(sandbox):
    zombies = """
    import os
    for made in range(500):
        try:
            if os.fork() == 0:
                os._exit(0)
        except OSError:
            return made
    return made
    """
    assert int(attempted(sandbox, zombies)) < 8
    threads = """
    import threading
    for made in range(500):
        try:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        except RuntimeError:
            return made
    return made
    """
    assert int(attempted(sandbox, threads)) < 8


def test_a_program_is_nobody_and_stays_so(sandbox):
    assert int(attempted(sandbox, "import os\nreturn os.getuid()")) != 0
    assert attempted(sandbox, "import os\nos.setuid(0)\nreturn 1") in (
        "raised PermissionError",
        "raised OSError",
    )
    # New namespaces would bring new privileges.
    assert attempted(sandbox, "import ctypes\nreturn ctypes.CDLL(None).unshare(0x10000000)") == "-1"
    assert (
        attempted(sandbox, "import ctypes\nreturn ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0)")
        == "-1"
    )
    raised = "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (500, 500))\nreturn 1"
    assert attempted(sandbox, raised) == "raised ValueError"


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/etc/passwd", str(Path.home() / ".bashrc"), str(Path.home()), str(Path(__file__))],
)
def test_nothing_of_the_machine_can_be_read(sandbox, path):
    assert attempted(sandbox, f"return open({path!r}).read()") == "raised FileNotFoundError"


def test_the_home_is_empty_and_the_environment_says_nothing(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    assert attempted(sandbox, "import os\nreturn os.listdir(os.path.expanduser('~'))") == "[]"
    names = attempted(sandbox, "import os\nreturn sorted(os.environ)")
    assert set(eval(names)) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PWD"}
    assert attempted(sandbox, "import os\nreturn len([p for p in os.listdir('/proc') if p.isdigit()])") in (
        "2",
        "3",
    )


@pytest.mark.parametrize(
    "path", ["/x", "/usr/x", "/dev/x", "/dev/shm/x", "/proc/sys/kernel/hostname", "/home/x"]
)
def test_nothing_can_be_written_outside_of_tmp(sandbox, path):
    found = attempted(sandbox, f"open({path!r}, 'w').write('x')\nreturn 1")
    assert found.startswith("raised ")


def test_the_disk_is_bounded(sandbox):
    one = "with open('/tmp/x', 'wb') as f:\n    for _ in range(64): f.write(bytes(2 ** 20))\nreturn 1"
    assert attempted(sandbox, one) == "raised OSError"
    many = """
    total = 0
    try:
        for i in range(64):
            with open(f'/tmp/{i}', 'wb') as f:
                total += f.write(bytes(2 ** 20))
    except OSError:
        pass
    return total // 2 ** 20
    """
    assert int(attempted(sandbox, many)) <= 8


def test_there_is_no_network(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        body = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\nreturn 1"
        assert attempted(sandbox, body).startswith("raised ")
    # Abstract sockets have no file, and belong to a network namespace.
    with socket.socket(socket.AF_UNIX) as server:
        name = f"\0editloop-{uuid.uuid4()}"
        server.bind(name)
        server.listen()
        body = f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})\nreturn 1"
        assert attempted(sandbox, body) == "raised ConnectionRefusedError"


def test_what_is_printed_goes_nowhere_and_a_long_answer_is_cut_off(sandbox):
    assert (
        attempted(sandbox, "import sys\nprint('x' * 10 ** 7)\nsys.stderr.write('x' * 10 ** 7)\nreturn 1")
        == "1"
    )
    flood = """
    import os
    for fd in range(3, 32):
        try:
            os.write(fd, b'x' * 10 ** 7)
        except OSError:
            pass
    """
    assert called(sandbox, flood).status == "output"
    # A value of any length is answered to its first characters.
    assert len(attempted(sandbox, "return 'x' * 10 ** 6")) == 2000


def test_an_answer_that_is_not_ours_is_no_harm(sandbox):
    forged = """
    import os
    for fd in range(3, 32):
        try:
            os.write(fd, {!r})
        except OSError:
            pass
    os._exit(0)
    """
    for answer in (
        b"[1]",
        b"{}",
        b"null",
        b'{"status": "won"}',
        b"[" * 60_000,
        b"\xff\xfe",
        b'{"status": "done", "values": 3}',
        b'{"status": "done", "values": "abc"}',
        b'{"status": "done", "detail": "a\\\\nb\\\\u001b[2J\\\\ud800", "values": 3}',
    ):
        found = called(sandbox, forged.format(answer))
        assert found.status == "crashed"
        assert "\n" not in found.detail
    # It can say what it likes, but not know what is expected.
    found = called(sandbox, forged.format(b'{"status": "done", "values": ["guess"]}'))
    assert not found.gives(("2",))


def test_signals_reach_nobody_outside(sandbox):
    for target in ("os.getppid()", "1", "-1", str(os.getpid())):
        called(sandbox, f"import os, signal\nos.kill({target}, signal.SIGKILL)\nreturn 1")
    assert called(sandbox, "return 1").values == ("1",)


def test_without_bubblewrap_nothing_runs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "bwrap" else f"/usr/bin/{name}")
    with pytest.raises(
        SandboxError, match=r"the sandbox needs bwrap \(install it: apt-get install bubblewrap\)"
    ):
        Sandbox()


def test_where_namespaces_are_missing_it_refuses_in_a_line(tmp_path, monkeypatch):
    """As in a stock container: bubblewrap is there, and what it asks for is refused."""
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    tmp_path.chmod(0o755)
    refusing.chmod(0o755)
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: str(refusing) if name == "bwrap" else found(name))
    with pytest.raises(SandboxError) as caught:
        Sandbox()
    assert "No permissions to create new namespace" in str(caught.value) or "Permission denied" in str(
        caught.value
    )
    assert "user namespaces" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_on_another_system_it_refuses(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SandboxError, match="the sandbox needs Linux: 'darwin'"):
        Sandbox()


def test_numbers_that_are_not_finite_and_long_values_are_compared(sandbox):
    found = called(sandbox, "return arguments", float("inf"), float("nan"), "a" * 5000)
    assert found.gives((repr((float("inf"), float("nan"), "a" * 5000)),))
    assert not found.gives((repr((float("inf"), float("nan"), "b" * 5000)),))


def test_many_open_files_are_no_hindrance(sandbox):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as files:
            for _ in range(1100):
                files.enter_context(Path(os.devnull).open())
            assert called(sandbox, "return 1").values == ("1",)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_limits_of_the_parent_that_are_lower_hold(sandbox):
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 20, 2 ** 20))\n"
        "from editloop.sandbox import Program, Sandbox\n"
        "body = 'def f():\\n    import resource\\n    return resource.getrlimit(resource.RLIMIT_FSIZE)'\n"
        "print(Sandbox().run([Program(body, 'f', ((),))])[0].values)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(1048576, 1048576)" in done.stdout


def test_the_environment_of_the_parent_has_no_influence(monkeypatch, sandbox):
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent.so")
    assert called(sandbox, "return 1").values == ("1",)


def test_progress_is_counted_in_programs(sandbox: Sandbox, make_sandbox: Callable[..., Sandbox]):
    seen: list[int] = []
    sandbox.run([Program("x = 1")] * 3, progress=seen.append)
    assert seen == [1, 2, 3]
