"""What strace saw a daemon do in a folder, and the folder as a power cut at any moment could have left it.

The disk that is simulated is the worst that POSIX allows, but for two things that SQLite builds upon as well: a sector of
512 bytes is old or new and never a mixture, and bytes beside those that were written stay as they were. What was synced
before the cut is there. Each write that was not is dropped, kept or torn at sectors, whatever became of those around it. A
name that was made, changed or removed counts once its folder is synced; of those that were not, the first few are kept.

A sync covers what was written before it began, and counts once it has returned. Shared memory (`-shm`) is not rebuilt:
SQLite makes it anew. Any other shared mapping that can be written to would be writes that nobody sees, and is a fault.
"""

import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

SECTOR = 512
NAMING = ["rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat"]
KNOWN = ["open", "openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "mmap", *NAMING]
# What would change a file in a way that is not rebuilt here: a fault where it is done to the folder.
OF_FILES = ["writev", "pwritev", "pwritev2", "fallocate", "sync_file_range", "copy_file_range", "sendfile", "splice"]
OF_ALL = ["sync", "syncfs", "truncate", "creat", "io_uring_setup"]

# Whole, unfinished and resumed lines; the time is when the call began, the last number how long it took.
LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
CALL = re.compile(
    r"^(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(?:<([^>]*)>)?"
    r"(?:\(deleted\))?(?: [A-Z]\w*)?(?: \([^)]*\))?(?: <(\d+\.\d+)>)?$"
)
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
TEXT = re.compile(r'"([^"]*)"')


def strace(log: Path) -> list:
    """The beginning of a command that is recorded."""
    calls = f"trace={','.join(KNOWN + OF_FILES + OF_ALL)}"
    how = ["-f", "--seccomp-bpf", "-y", "-ttt", "-T", "-xx", "-s", str(1 << 24)]
    return ["strace", *how, "-e", calls, "-e", "signal=none", "-o", log]


@dataclass(frozen=True)
class Event:
    """A call that changes the folder: when it began, when it had returned."""

    began: float
    ended: float
    what: str
    path: str
    at: int = 0
    data: bytes = b""
    to: str = ""


def read(log: Path, folder: Path) -> tuple[list[Event], list[str]]:
    """The events of a log in the order in which they ended, and what in it cannot be rebuilt."""
    events, faults = [], []
    begun: dict[str, tuple[str, str]] = {}
    places: dict[tuple[str, int], int] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            pid, stamp, text = LINE.match(line.rstrip("\n")).groups()
            if text.endswith(UNFINISHED):
                begun[pid] = (stamp, text.removesuffix(UNFINISHED))
                continue
            if resumed := RESUMED.match(text):
                stamp, head = begun.pop(pid)
                text = head + resumed[1]
            if not (call := CALL.match(text)):
                continue
            name, arguments, result, opened, took = call.groups()
            # What failed or was cut by the end of the process changed nothing that counts.
            if result == "?" or result.startswith("-"):
                continue
            times = float(stamp), float(stamp) + float(took or 0)
            found = _event(times, name, arguments, int(result, 0), plain(opened or ""), (folder, places))
            if isinstance(found, Event):
                events.append(found)
            elif found:
                faults.append(found)
    return sorted(events, key=lambda event: event.ended), faults


def plain(text: str) -> str:
    """A path as strace -xx writes it."""
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text


def _event(times, name, arguments, result, opened, where) -> Event | str | None:
    folder, places = where
    inside = f"{folder}/"

    def ours(path: str) -> bool:
        return path.startswith(inside) and not path.endswith("-shm")

    if name in ("openat", "open"):
        if not ours(opened):
            return None
        places[opened, result] = 0
        if "O_APPEND" in arguments:
            return f"{opened} is appended to"
        return Event(*times, "truncated" if "O_TRUNC" in arguments else "made", opened) if "O_CREAT" in arguments else None
    if name in NAMING:
        paths = [plain(path) for path in TEXT.findall(arguments)]
        if not paths or not ours(paths[0]):
            return None
        return Event(*times, re.sub("(at|at2)$", "", name), paths[0], to=paths[-1])
    if name == "mmap":
        mapped = re.search(r", (\d+)<([^>]*)>", arguments)
        risky = mapped and "MAP_SHARED" in arguments and "PROT_WRITE" in arguments
        return f"{plain(mapped[2])} is mapped to be written" if risky and ours(plain(mapped[2])) else None
    if name in OF_ALL:
        return f"{name} is not rebuilt"
    if not (file := DESCRIPTOR.match(arguments)):
        return None
    path, number = plain(file[2]), int(file[1])
    if name in ("fsync", "fdatasync") and (ours(path) or path == str(folder)):
        return Event(*times, "synced", path)
    if not ours(path):
        return None
    if name in OF_FILES:
        return f"{name} on {path} is not rebuilt"
    if name == "ftruncate":
        return Event(*times, "cut", path, int(arguments.rsplit(", ", 1)[1]))
    if name in ("write", "pwrite64"):
        data = bytes.fromhex(TEXT.search(arguments)[1].replace("\\x", ""))
        if len(data) < result:
            return f"{name} on {path} was recorded in part"
        at = int(arguments.rsplit(", ", 1)[1]) if name == "pwrite64" else places.get((path, number), 0)
        if name == "write":
            places[path, number] = at + result
        return Event(*times, "written", path, at, data[:result])
    return None


@dataclass
class File:
    """What is certainly on the disk, and what was asked for since. A folder is a file without content."""

    is_folder: bool = False
    certain: bytearray = field(default_factory=bytearray)
    open: list[Event] = field(default_factory=list)


class Disk:
    """A folder that events are done to, and that can be looked at as a power cut would leave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.names: dict[str, File] = {}
        self.certain: dict[str, File] = {}
        # Changes of names that no sync of their folder covers: (event, file).
        self.open: list[tuple[Event, File | None]] = []

    def do(self, event: Event) -> None:
        """Does an event that has ended."""
        what, path = event.what, event.path
        if what in ("made", "truncated"):
            if path not in self.names:
                self.names[path] = File()
                self.open.append((event, self.names[path]))
            elif what == "truncated":
                self.names[path].open.append(event)
        elif what == "mkdir":
            self.names[path] = File(is_folder=True)
            self.open.append((event, self.names[path]))
        elif what == "rename":
            self.names[event.to] = self.names.pop(path)
            self.open.append((event, self.names[event.to]))
        elif what == "link":
            self.names[event.to] = self.names[path]
            self.open.append((event, self.names[path]))
        elif what == "unlink":
            self.open.append((event, self.names.pop(path, None)))
        elif what in ("written", "cut"):
            if path in self.names:
                self.names[path].open.append(event)
        elif what == "synced":
            self._sync(event)

    def _sync(self, sync: Event) -> None:
        file = self.names.get(sync.path)
        if file and not file.is_folder:
            for event in file.open:
                if event.ended <= sync.began:
                    change(file.certain, event)
            file.open = [event for event in file.open if event.ended > sync.began]
        else:
            covered = [one for one in self.open if self._is_in(one[0], sync.path) and one[0].ended <= sync.began]
            for event, file in covered:
                rename(self.certain, event, file)
            self.open = [one for one in self.open if one not in covered]

    @staticmethod
    def _is_in(event: Event, folder: str) -> bool:
        return event.path.rpartition("/")[0] == folder

    def rebuild(self, to: Path, under_way: list[Event], rng: random.Random) -> str:
        """Writes the folder as it may be after a cut now, while these calls were under way; how it was chosen."""
        names = dict(self.certain)
        kept = rng.randint(0, len(self.open))
        for event, file in self.open[:kept]:
            rename(names, event, file)
        mood = rng.choice(["dropped", "kept", "mixed", "mixed", "torn", "torn"])
        to.mkdir(mode=0o700)
        for path, file in sorted(names.items()):
            place = to / Path(path).relative_to(self.folder)
            # What stands in a folder is gone with it.
            if not place.parent.is_dir():
                continue
            if file.is_folder:
                place.mkdir(mode=0o700)
                continue
            content = bytearray(file.certain)
            since = [event for event in under_way if event.path == path and event.what in ("written", "cut")]
            for event in file.open + since:
                for piece in pieces(event, mood, rng):
                    change(content, piece)
            place.write_bytes(content)
        return f"unsynced writes {mood}, {kept} of {len(self.open)} changes of names kept"


def rename(names: dict[str, File], event: Event, file: File | None) -> None:
    if event.what in ("unlink", "rename"):
        names.pop(event.path, None)
    if file is not None and event.what != "unlink":
        names[event.to or event.path] = file


def change(content: bytearray, event: Event) -> None:
    """Does a write or a cut to the content of a file."""
    end = event.at + len(event.data)
    if event.what in ("truncated", "cut"):
        del content[event.at :]
    if len(content) < end or event.what == "cut":
        content.extend(bytes(max(0, end - len(content))))
    content[event.at : end] = event.data


def pieces(event: Event, mood: str, rng: random.Random) -> list[Event]:
    """What is left of a write that was not synced."""
    fate = rng.choice(["dropped", "kept", "torn"]) if mood == "mixed" else mood
    if fate == "dropped" or (event.what != "written" and fate == "torn" and rng.random() < 0.5):
        return []
    if fate == "kept" or event.what != "written":
        return [event]
    found, at, end = [], event.at, event.at + len(event.data)
    while at < end:
        upto = min(end, (at // SECTOR + 1) * SECTOR)
        if rng.random() < 0.5:
            found.append(replace(event, at=at, data=event.data[at - event.at : upto - event.at]))
        at = upto
    return found
