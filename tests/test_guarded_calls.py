"""What only one system has is guarded, and nothing runs what a file says.

Read from the sources alone. A call that only some systems have stands in a function
that asks for it, by `hasattr` or by the name of the system, and a path of one system is
one of those listed here, each of which may be absent.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.sources import trees

pytestmark = pytest.mark.broad  # each reads all of the source

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
WINDOWS_MODULES = {"msvcrt", "winreg", "winsound", "_winapi"}
POSIX_NAMES = {
    "os": {
        *("chown", "fchmod", "fchown", "fork", "getgid", "getpgid", "getuid", "killpg"),
        *("mkfifo", "nice", "posix_fadvise", "posix_fallocate", "pread", "pwrite"),
        *("register_at_fork", "sched_getaffinity", "sched_setaffinity", "sendfile"),
        *("setpriority", "setsid", "statvfs", "sync", "sysconf", "uname", "wait"),
        *("wait4", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "EX_OK", "WNOHANG"),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT"),
        *("SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer", "sigwait"),
        *("pthread_kill", "pthread_sigmask"),
    },
    "time": {"tzset", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW", "clock_gettime"},
    "mmap": {"MAP_ANONYMOUS", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ"},
    "socket": {"AF_UNIX", "socketpair"},
}
SYSTEM_PATHS = {  # absent elsewhere, where the reader goes another way
    "core/micrograph.py": {"/proc/cpuinfo"},
    "models/devices.py": {
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.high",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    },
    "io/files.py": {"/proc/self/ns/pid"},
}
PATH_OF_A_SYSTEM = re.compile(
    r"/(?:bin|dev|etc|home|proc|root|run|sys|tmp|usr|var)/[\w./-]+|~/\.\w+|[A-Z]:\\\w+"
)
UNPICKLING = {
    "training/run_folder.py",
    "training/place.py",
}
RUNS_CODE = {
    *("os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads"),
    *("joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "torch.jit.load"),
    *("cloudpickle.loads", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"),
    *("shelve.open", "subprocess.getoutput", "subprocess.getstatusoutput"),
}


def with_owners(node: ast.AST, owner: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Give each node with the innermost function, or else module, that holds it."""
    inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        held_by = node if inner else owner
        yield child, held_by
        yield from with_owners(child, held_by)


def asks_for_the_system(owner: ast.AST, name: str) -> bool:
    """Whether a function looks at the system, or whether the name is there."""
    text, (module, _, attribute) = ast.unparse(owner), name.partition(".")
    return "sys.platform" in text or f"hasattr({module}, '{attribute}')" in text


def tried(tree: ast.Module) -> set[ast.AST]:
    """Give the imports whose absence is caught."""
    return {
        node
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        and any(
            isinstance(handler.type, ast.Name) and handler.type.id == "ImportError"
            for handler in attempt.handlers
        )
        for node in attempt.body
    }


def unguarded(tree: ast.Module) -> list[str]:
    """Name what only one system has and stands there without a question."""
    found = []
    guarded = tried(tree)
    for node, owner in with_owners(tree, tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            used = {item.name.partition(".")[0] for item in node.names}
            found += sorted(used & (POSIX_MODULES | WINDOWS_MODULES))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found += sorted({module} & (POSIX_MODULES | WINDOWS_MODULES))
            names = {item.name for item in node.names} & POSIX_NAMES.get(module, set())
            found += [f"{module}.{name}" for name in sorted(names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            only = node.attr in POSIX_NAMES.get(node.value.id, ())
            if only and not asks_for_the_system(owner, name):
                found.append(name)
    return found


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Give each call with its dotted name, as written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@cache
def all_calls() -> list[tuple[str, str, ast.Call]]:
    """Give each call of the package with its file and its dotted name."""
    return [
        (name, called, call)
        for name, tree in trees().items()
        for called, call in calls(tree)
    ]


def keywords(call: ast.Call) -> dict[str, str]:
    """Keywords of a call, as written."""
    return {item.arg: ast.unparse(item.value) for item in call.keywords if item.arg}


def doubtful_start(name: str, call: ast.Call) -> bool:
    """Whether a process is started in a way that only some systems have."""
    given = keywords(call)
    if name.startswith("subprocess.") and (given.get("shell") == "True"):
        return True
    if {"preexec_fn", "pass_fds", "process_group"} & given.keys():
        return True
    words = [ast.unparse(item) for item in call.args] + list(given.values())
    forked = {"'fork'", "'forkserver'"} & set(words)
    return bool(forked) and name.split(".")[-1] in {
        *("get_context", "set_start_method", "DataLoader", "Process"),
    }


def reads_text_as_the_system_likes(name: str, call: ast.Call) -> bool:
    """Whether a text file is opened without naming its encoding."""
    last = name.rpartition(".")[2]
    given = {*keywords(call)}
    if last in {"read_text", "write_text"}:
        before = 0 if last == "read_text" else 1
        return len(call.args) <= before and "encoding" not in given
    modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
    modes += [
        item.value.value
        for item in call.keywords
        if item.arg == "mode" and isinstance(item.value, ast.Constant)
    ]
    is_text = not any(isinstance(mode, str) and "b" in mode for mode in modes)
    return name == "open" and is_text and "encoding" not in given


def test_nothing_is_used_that_only_one_system_has():
    found = {name: unguarded(tree) for name, tree in trees().items()}
    assert {name: what for name, what in found.items() if what} == {}


def test_paths_of_one_system_are_those_known():
    found: dict[str, set[str]] = {}
    for name, tree in trees().items():
        texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
        for text in texts:
            if isinstance(text, str) and PATH_OF_A_SYSTEM.fullmatch(text):
                found.setdefault(name, set()).add(text)
    assert found == SYSTEM_PATHS


@pytest.mark.parametrize(
    "is_fault",
    [doubtful_start, reads_text_as_the_system_likes],
    ids=["processes", "encodings"],
)
def test_no_call_leans_on_one_system(is_fault):
    found = [
        f"{name}:{call.lineno} {called}"
        for name, called, call in all_calls()
        if is_fault(called, call)
    ]
    assert found == []


def test_nothing_runs_what_a_file_says():
    for name, called, call in all_calls():
        where = f"{name}:{call.lineno} {called}"
        given = keywords(call)
        assert called not in RUNS_CODE | {"eval", "exec"}, where
        assert given.get("allow_pickle", "False") == "False", where
        if called == "torch.load":
            assert name in UNPICKLING, where
            assert given.get("weights_only") == "True", where
        if called == "yaml.load":
            assert "Loader" in given, where


TABLES = {"io/sheets.py", "jobs/stitch.py"}
TERMINAL = {"cli/command.py", "jobs/train_process.py"}  # the latter in a process apart


def test_tables_and_terminals_have_one_writer():
    wrote = {name for name, called, _ in all_calls() if called.startswith("csv.w")}
    wrote |= {name for name, called, _ in all_calls() if called == "csv.DictWriter"}
    assert wrote <= TABLES
    spoke = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
        and ast.unparse(node) in ("sys.stdout", "sys.stderr", "print")
    }
    assert spoke <= TERMINAL


READS_FILES_OF_OTHERS = (
    *("io/", "models/", "pairing/", "jobs/resume.py", "training/"),
)
STORES = {"here", "place", "store"}  # names of what is no path any more
# Of the user's settings, of an execution's workers, of the system
OWN = {"io/project.py", "models/devices.py"}


def opens_without_a_look(called: str, call: ast.Call) -> bool:
    """Whether a file is opened, or a store, in another way than by `open_file`."""
    last = called.rpartition(".")[2]
    words = [ast.unparse(item) for item in call.args]
    if called.startswith("zarr.open"):
        is_new = keywords(call).get("mode") == "'w-'"
        known = (
            words[0].startswith(("FolderStore(", "core.FolderStore("))
            or words[0] in STORES
        )
        return not (is_new or known)
    if last in {"read_text", "read_bytes"}:
        own = {"core.read_bytes", "io.read_text", "files.read_text"}  # of the opener
        return "." in called and called.removeprefix("io_") not in own
    return last == "open" and "'rb'" in words


def test_files_of_others_are_opened_by_one_opener():
    found = [
        f"{name}:{call.lineno} {called}"
        for name, called, call in all_calls()
        if name.startswith(READS_FILES_OF_OTHERS) and opens_without_a_look(called, call)
    ]
    assert [one for one in found if one.partition(":")[0] not in OWN] == []


@pytest.mark.parametrize(
    ("is_fault", "wrong", "right"),
    [
        (opens_without_a_look, "path.open('rb')", "open_file(path)"),
        (opens_without_a_look, "path.read_bytes()", "read_bytes(path, 3)"),
        (opens_without_a_look, "zarr.open_group(path)", "zarr.open_group(store)"),
        (reads_text_as_the_system_likes, "path.read_text()", "path.read_text('utf-8')"),
        (reads_text_as_the_system_likes, "open(path)", "open(path, 'rb')"),
        (doubtful_start, "subprocess.run(line, shell=True)", "subprocess.run(words)"),
        (doubtful_start, "context.Process('fork')", "context.Process('spawn')"),
    ],
)
def test_faults_are_told_from_what_is_right(is_fault, wrong, right):
    for line, expected in ((wrong, True), (right, False)):
        ((name, call),) = calls(ast.parse(line))
        assert is_fault(name, call) == expected
