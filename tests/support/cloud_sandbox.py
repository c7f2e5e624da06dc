"""What launch/tpu_search.sh is tested in: a checkout, a fake Google Cloud, and a PATH with its commands."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from support import fake_cloud

ROOT = Path(__file__).parents[2]
# Of the packages no more than is looked at.
SHIPPED = ["launch/*.sh", "launch/tpu/*.sh", "setup.py", "README.md", "pyproject.toml"]
SHIPPED += ["evonorms_jax/__init__.py", "experiments/__init__.py", "experiments/configs/*.py"]
PLACE = ["--project=p", "--zone=z", "--quiet"]
NEEDED = ["--project=p", "--zone=z", "--type=v6e-16", "--bucket=b/runs", "--name=mine", "--poll=0"]
# What the Python of a worker is called with.
START = ["-m", "experiments.search", "--config=experiments/configs/search_mnist5k.py"]
START += ["--workdir=gs://b/runs/mine", "--distributed"]
OVERRIDES = [
    "--config.name=two  spaces, 'single' and \"double\" quotes",
    "--config.evolution.selection=$HOME `id` $(id) \\ ! * ? ~ #; & | < >",
    "--config.anchors=('a', 'b')",
    "--config.empty=",
    "--config.line=one\ntwo\ttab",
    "--config.word=ünïcode € {a,b} [c]",
    "--noconfig.flag",
    "--config.end= trailing ",
]


class Cloud:
    """What is done in the sandbox, and what is seen of it."""

    def __init__(self, tmp_path):
        self.checkout, self.cloud, self.bin = tmp_path / "checkout", tmp_path / "cloud", tmp_path / "bin"
        fake_cloud.install(self.cloud, self.bin)
        for name in SHIPPED:
            for file in ROOT.glob(name):
                copy = self.checkout / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("EVONORMS_")}
        self.environment |= {"PATH": f"{self.bin}:{os.environ['PATH']}", "EVONORMS_TPU_PAUSE": "0"}
        self.environment |= {"HOME": str(self.cloud / "me"), "PYTHON": str(self.bin / "python")}

    def run(self, *arguments, status=0, **environment):
        done = subprocess.run(
            [self.checkout / "launch" / "tpu_search.sh", *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == status, done.stderr
        return done

    def calls(self, *, looks=False):
        """The gcloud calls so far, without the looks at the TPU; forgets them."""
        calls = [json.loads(line) for line in fake_cloud.lines(self.cloud / "calls")]
        (self.cloud / "calls").unlink(missing_ok=True)
        return [call for call in calls if looks or "list" not in call]

    def set(self, **files):
        for name, content in files.items():
            (self.cloud / name).write_text(content + "\n")

    def plan(self, *steps, workers=fake_cloud.WORKERS):
        for worker in workers:
            (self.cloud / "plan" / worker).write_text("".join(f"{step}\n" for step in steps))

    def worker(self, number=0):
        return self.cloud / "workers" / str(number)

    def searching(self):
        """Returns when a search has begun on every worker; the session that it has was there before."""
        while any(START[1] not in self.python(worker)[-1] for worker in fake_cloud.WORKERS):
            time.sleep(0.02)

    def wait(self, worker):
        """Returns when nothing of a search lives on a worker."""
        lock = self.worker(worker) / "evonorms" / "search.lock"
        subprocess.run(["flock", "--timeout", "30", lock, "true"], check=True)

    def outcomes(self):
        """How the searches ended; waits until they have."""
        for worker in fake_cloud.WORKERS:
            self.wait(worker)
        files = [self.worker(worker) / "evonorms" / "search.outcome" for worker in fake_cloud.WORKERS]
        return [file.read_text().strip() for file in files]

    def python(self, number=0):
        """The arguments of the Python calls on a worker; those of `-c`, which ask for the version, apart."""
        return self._python(self.worker(number))

    def local_python(self):
        """The same of the machine that launches."""
        return self._python(self.cloud / "me")

    def _python(self, home):
        calls = [json.loads(line) for line in fake_cloud.lines(home / "python")]
        return [call for call in calls if call[0] != "-c"]


def names(calls):
    """The calls without their flags, a line each."""
    return [" ".join(word for word in call if not word.startswith("-")) for call in calls]
