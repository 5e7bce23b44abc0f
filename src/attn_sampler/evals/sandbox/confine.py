"""Taking rights away from the own process, by the kernel's means: namespaces, a jail of read-only folders, an own user, limits.

Linux only, as far as this kernel lets us; each function says what it could not do. It runs inside a process started for the
purpose, never in the evaluator's own. References: namespaces(7), mount_setattr(2), pivot_root(2), capabilities(7), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "adopt_orphans", "become_nobody", "enter_jail", "hide_memory", "limit", "new_namespaces", "no_new_rights", "when_parent_ends",
]  # fmt: skip

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # one system call number on all architectures but alpha
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 0x1, 0x2, 0x4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
WORK_BYTES = 16 << 20  # of the jail's working folder, which is memory

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    converted = [ctypes.c_char_p(a.encode()) if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, name)(*converted) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def new_namespaces() -> None:
    """No network but an idle loopback, own mounts, own IPC, and children in a process tree that dies with its first process.

    Root needs nothing else; anybody else becomes the only user of a user namespace first.

    Raises:
        OSError: the kernel, or a container's seccomp filter, does not let us.
    """
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} has no namespaces")
    user, group = os.geteuid(), os.getegid()
    _call("unshare", NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | (NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    for name in ("shmmax", "shmall", "msgmni"):  # memory of this kind outlives its process and no rlimit counts it
        try:
            Path(f"/proc/sys/kernel/{name}").write_text("0")
        except OSError:  # some kernels keep them for root; then the wall clock alone bounds them
            continue


def enter_jail(folder: Path) -> None:
    """Make a new root in ``folder``, on memory: Python's library and the system's libraries, read-only, and an empty ``/work``.

    The jail ends up as a chroot inside the new root: the kernel refuses user namespaces to a process in a chroot, with which it
    could mount memory of its own without limit.
    """
    _call("mount", "none", "/", None, MS_REC | MS_PRIVATE, None)
    _memory(folder, "size=1m,mode=755")
    jail = folder / "jail"
    for name in ("jail/work", "jail/dev", "old"):
        (folder / name).mkdir(parents=True)
    (jail / "tmp").symlink_to("/work")
    for source in _libraries():
        if source.is_symlink():
            target = jail / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(source))
        else:
            _bind(source, jail, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for device in ("null", "zero", "urandom"):
        (jail / "dev" / device).touch()
        _bind(Path("/dev", device), jail, ATTR_NOSUID)
    _memory(jail / "work", f"size={WORK_BYTES},nr_inodes=4096,mode=1777")
    _restrict(folder, ATTR_RDONLY, 0)
    _call("pivot_root", str(folder), str(folder / "old"))
    os.chdir("/")
    _call("umount2", "/old", MNT_DETACH)
    os.chroot("/jail")
    os.chdir("/work")


def _libraries() -> list[Path]:
    """What a Python program reads: its own library and the system's shared objects; outermost folders only."""
    own = {Path(os.__file__).resolve().parent, *(Path(p).resolve() for p in sys.path if Path(p).is_dir())}
    own |= {Path(sys.base_prefix, "lib"), Path(sys.base_prefix, sys.platlibdir)}
    system = [Path(p) for p in ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache")]
    found = [p for p in {*own, *system} if p.exists()]
    outer = [p for p in found if p.is_symlink() or not any(q in p.parents for q in found if not q.is_symlink())]
    return sorted(p for p in outer if not (p.is_symlink() and p not in system))


def _bind(source: Path, jail: Path, attributes: int) -> None:
    target = jail / source.relative_to("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _call("mount", str(source), str(target), None, MS_BIND | MS_REC, None)
    _restrict(target, attributes, AT_RECURSIVE)


def _memory(folder: Path, options: str) -> None:
    _call("mount", "tmpfs", str(folder), "tmpfs", MS_NOSUID | MS_NODEV, options)


def _restrict(mount: Path, attributes: int, flags: int) -> None:
    wanted = ctypes.create_string_buffer(struct.pack("QQQQ", attributes, 0, 0, 0))  # struct mount_attr
    _call("syscall", MOUNT_SETATTR, AT_FDCWD, str(mount), flags, wanted, ctypes.c_size_t(32))


def become_nobody(number: int) -> None:
    """Where we are root, be an unprivileged user that nobody else is: root is exempt from the limit of processes.

    Args:
        number: user and group id. Where the container does not map it, ``nobody``.
    """
    if os.geteuid():
        return
    os.setgroups([])
    try:
        os.setresgid(number, number, number)
        os.setresuid(number, number, number)
    except OSError:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def no_new_rights() -> None:
    """Give up all capabilities, for good: also those of a set-user-id program."""
    if sys.platform != "linux":
        return
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = ctypes.create_string_buffer(struct.pack("Ii", CAPABILITY_VERSION_3, 0))
    _call("capset", header, ctypes.create_string_buffer(24))


def hide_memory() -> None:
    """No process without privileges may read or trace this one."""
    if sys.platform == "linux":
        _prctl(PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Children of ended children become children of this process, not of the system's first one."""
    if sys.platform == "linux":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def when_parent_ends(number: int) -> None:
    """Be sent that signal then. A change of user undoes it."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, number)


def limit(limits: Mapping[str, int]) -> None:
    """Set resource limits, soft and hard: name of the constant without ``RLIMIT_`` → value. None is raised above what it is."""
    for name, value in limits.items():
        if hasattr(resource, f"RLIMIT_{name}"):
            number = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(number)[1]
            ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (ceiling, ceiling))
