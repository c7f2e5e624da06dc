"""A Google Cloud without a network: stand-ins for gcloud, curl, uv and the Python of a worker.

`install` puts them into a folder for PATH; each is this file, run with its name. The cloud is a folder:

  request, node   states of the TPU, one a line; a look takes the first and leaves the last
  workers/N/      home of worker N, where commands sent by ssh really run
  plan/N          what the searches on worker N do, one a line: an exit status, "wait" for Ctrl-C or for
                  another search, "import", which dies of Ctrl-C, "release" those that wait;
                  without a line they exit with 0
  event           what happens, and after how many looks at the workers: "preempt 3" takes the TPU back,
                  "interrupt" kills the search on worker 1, "replace" gives it an empty disk too
  broken          words of gcloud and Python commands that fail, one a line
  calls           the arguments of every gcloud call, as JSON. workers/N/python has those of the Python of a
                  worker, me/python those of the machine that launches.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

WORKERS = ("0", "1")


def install(cloud, folder):
    """Makes the commands in `folder`, and in `cloud` the folders of a cloud that has no TPU."""
    folder.mkdir()
    (cloud / "plan").mkdir(parents=True)
    (cloud / "me").mkdir()
    for name in ("gcloud", "curl", "uv", "python"):
        file = folder / name
        # -I -S: twice as fast to start.
        file.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {cloud} {folder} {name} "$@"\n')
        file.chmod(0o755)


def gcloud(cloud, folder, arguments):
    log(cloud / "calls", arguments)
    flags = dict(word.split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    plain = [word for word in arguments if not word.startswith("-")]
    if is_broken(cloud, plain):
        return "ERROR: (gcloud) broken"
    match plain:
        case ["compute", "tpus", "queued-resources", "list"]:
            print(take(cloud / "request"))
        case ["compute", "tpus", "tpu-vm", "list"]:
            print(take(cloud / "node"))
        case ["compute", "tpus", "queued-resources", "create", _]:
            (cloud / "request").write_text("CREATING\nWAITING_FOR_RESOURCES\nACTIVE\nACTIVE\n")
            (cloud / "node").write_text("\n\nCREATING\nREADY\n")
        case ["compute", "tpus", "queued-resources" | "tpu-vm", "delete", _]:
            delete(cloud)
        case ["compute", "tpus", "tpu-vm", "scp", source, target]:
            for worker in chosen(flags):
                shutil.copy(source, home(cloud, worker) / target.split(":")[1])
        case ["compute", "tpus", "tpu-vm", "ssh", _]:
            return ssh(cloud, folder, chosen(flags), flags["--command"])
        case ["storage", *_]:
            pass
        case _:
            return f"ERROR: unknown command {plain}"
    return 0


def is_broken(cloud, arguments):
    return any(name in " ".join(arguments) for name in lines(cloud / "broken"))


def chosen(flags):
    return WORKERS if flags["--worker"] == "all" else [flags["--worker"]]


def ssh(cloud, folder, workers, command):
    if "worker.sh state" in command:
        happen(cloud)
    if lines(cloud / "node") != ["READY"]:
        return "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) unusable"
    status = 0
    for worker in workers:
        # gcloud splits the command at spaces, and ssh joins its arguments by spaces.
        line = " ".join(command.split(" "))
        place = home(cloud, worker)
        path = f"{folder}:{os.environ['PATH']}"
        environment = os.environ | {"HOME": str(place), "HOSTNAME": f"w-{worker}", "PATH": path}
        done = subprocess.run(["bash", "-c", line], cwd=place, env=environment, check=False)
        status = status or done.returncode
    return status


def happen(cloud):
    """What befalls the TPU between two looks at its workers."""
    event, looks = (take(cloud / "event") or "nothing 1").split()
    if looks != "1":
        (cloud / "event").write_text(f"{event} {int(looks) - 1}\n")
        return
    (cloud / "event").unlink(missing_ok=True)
    if event == "preempt":
        delete(cloud)
        (cloud / "request").write_text("SUSPENDED\n")
        shutil.rmtree(cloud / "plan")  # that of the workers that are gone
    elif event in ("interrupt", "replace"):
        while "wait" in lines(cloud / "plan" / "1"):
            time.sleep(0.02)
        kill(home(cloud, "1") / "evonorms")
        if event == "replace":
            shutil.rmtree(home(cloud, "1"))


def delete(cloud):
    for name in ("request", "node"):
        (cloud / name).unlink(missing_ok=True)
    for place in cloud.glob("workers/*/evonorms"):
        kill(place)
    shutil.rmtree(cloud / "workers", ignore_errors=True)


def kill(place):
    """Ends the search of a worker, if there is one, and returns when nothing of it lives."""
    with (place / "search.lock").open("a") as lock:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return  # none is there: the number may be another's by now
        os.killpg(int((place / "search.pid").read_text()), signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)


def curl(cloud, folder, arguments):
    """The installer of uv, whose address must be the last argument."""
    assert arguments[-1] == "https://astral.sh/uv/install.sh"
    print(f"mkdir -p ~/.local/bin && cp {folder}/uv ~/.local/bin/")
    return 0


def uv(cloud, folder, arguments):
    log(Path("../uv"), arguments)
    return make_environment(folder, arguments[-1])


def make_environment(folder, name):
    place = Path(name) / "bin"
    place.mkdir(parents=True)
    shutil.copy(folder / "python", place)
    (place / "activate").write_text(f"PATH={place.absolute()}:$PATH\n")
    return 0


def python(cloud, folder, arguments):
    log(Path.home() / "python", arguments)
    if is_broken(cloud, arguments):
        sys.stderr.write("a warning\nerror: broken\n")
        return 2
    if arguments[:2] == ["-m", "venv"]:
        return make_environment(folder, arguments[-1])
    searches = arguments[:2] == ["-m", "experiments.search"] and "--check" not in arguments
    what = (searches and take(cloud / "plan" / Path.home().name, leave=0)) or "0"
    if what in ("wait", "import"):
        at_ctrl_c = signal.SIG_DFL if what == "import" else lambda *_: sys.exit(130)
        signal.signal(signal.SIGINT, at_ctrl_c)
        while not (cloud / "released").exists():
            time.sleep(0.05)
    if what == "release":
        (cloud / "released").touch()
    return int(what) if what.isdigit() else 0


def home(cloud, worker):
    place = cloud / "workers" / worker
    place.mkdir(parents=True, exist_ok=True)
    return place


def lines(file):
    return file.read_text().splitlines() if file.exists() else []


def take(file, leave=1):
    """The first line of a file, which loses it unless it is one of the last `leave`."""
    first, *rest = lines(file) or [""]
    if len(rest) >= leave and file.exists():
        file.write_text("".join(line + "\n" for line in rest))
    return first


def log(file, arguments):
    with file.open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    cloud, folder, name, *arguments = sys.argv[1:]
    sys.exit(globals()[name](Path(cloud), Path(folder), arguments))
