"""What docs/scheduling.md tells to copy works."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml

from search.cli.app import make_app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scheduling.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def calls():
    """The words after `python -m search` of every call on the page, up to where the shell's own begin."""
    for text in re.findall(r"python -m search ([^\n`|]*)", PAGE):
        bare = re.split(r" 2?>> | &$|'$|\"", text.replace('--cron "0 3 * * *"', "--cron nightly"))[0]
        yield shlex.split(bare)


def test_every_call_names_a_command_and_options_that_exist():
    group = typer.main.get_command(make_app())
    found = list(calls())
    assert {words[0] for words in found} == {"refresh", "watch"}
    assert len(found) >= 10
    for words in found:
        command = group.commands[words[0]]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
        if "SPACE" not in words:
            command.make_context(words[0], list(words[1:]))  # raises for an option without its value


def test_a_call_with_a_wrong_option_would_be_noticed():
    with pytest.raises(Exception, match="No such option: --often"):
        typer.main.get_command(make_app()).commands["watch"].make_context("watch", ["a.yaml", "--often"])


def test_the_options_of_the_page_are_good_ones():
    from search.watch.schedule import parse_duration

    for text in re.findall(r"--(?:every|jitter) (\S+)|`--poll` \((\S+)\)", PAGE):
        assert parse_duration("".join(text), where="docs") > 0


def test_the_python_blocks_compile():
    (dag,) = blocks("python")
    compile(dag, "dag.py", "exec")
    assert "skip_on_exit_code=3" in dag


def bash_of_the_task(folder, program):
    """The task's shell as Airflow starts it, in a process group of its own, with a `python` that is this program."""
    command = re.search(r'bash_command="""(.*?)"""', blocks("python")[0], flags=re.DOTALL)[1]
    fake = folder / "venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    return subprocess.Popen(
        ["bash", "-c", command], cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_last_line_that_the_task_hears_is_the_decision(tmp_path, code):
    process = bash_of_the_task(tmp_path, f"echo '{{}}'; echo words >&2; exit {code}")
    assert process.communicate(timeout=20)[0] == "{}\n"
    assert process.returncode == code
    assert (tmp_path / "refresh.log").read_text() == "words\n"


def test_ending_the_task_ends_the_refresh_alone_which_keeps_its_epochs(tmp_path):
    kept = f"trap 'sleep 0.3; kill -0 $ray && touch {tmp_path}/kept; kill $ray; exit 130' TERM"
    process = bash_of_the_task(
        tmp_path, f"sleep 60 & ray=$!; {kept}; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    )
    wait_for(tmp_path / "begun")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 130
    assert (tmp_path / "kept").exists()


def wait_for(path):
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (2, 1), (3, 0)])
def test_the_file_of_the_ray_job_makes_success_of_nothing_to_do(tmp_path, code, seen):
    (script,) = blocks("sh")
    (tmp_path / "python").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "refresh.sh").write_text(script.replace("/shared/cells", str(tmp_path)))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["sh", tmp_path / "refresh.sh"], env=environment, check=False).returncode == seen


def units(folder):
    """The units of the page as files, with this Python and a folder and a user that are there."""
    names = re.findall(r"`/etc/systemd/system/(\S+)`", PAGE)
    written = dict(zip(names, blocks("ini"), strict=True))
    assert list(written) == ["refresh-cells.service", "refresh-cells.timer", "watch-cells.service"]
    for name, text in written.items():
        here = text.replace("/srv/cells/venv/bin/python", sys.executable).replace("/srv/cells", str(folder))
        (folder / name).write_text(here.replace("User=cells", "User=root"))
    return [folder / name for name in written]


def verified(paths):
    command = ["systemd-analyze", "verify", *map(str, paths)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [row for row in found.stderr.splitlines() if any(path.name in row for path in paths)]
    return found.returncode, ours


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path):
    paths = units(tmp_path)
    assert verified(paths) == (0, [])
    paths[0].write_text(paths[0].read_text().replace("KillMode=mixed", "KillMod=mixed"))
    assert "Unknown key" in verified(paths)[1][0]


def test_the_units_count_nothing_to_do_as_success(tmp_path):
    refresh, timer, watch = (path.read_text() for path in units(tmp_path))
    assert "SuccessExitStatus=3 130\n" in refresh
    assert "SuccessExitStatus=130\n" in watch
    assert all(line in timer for line in ("Persistent=true\n", "RandomizedDelaySec=5min\n"))


@pytest.fixture
def cron_job():
    (text,) = blocks("yaml")
    return yaml.safe_load(text)


def pod(job):
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_cron_job_runs_one_at_a_time_and_mounts_what_it_names(cron_job):
    assert (cron_job["kind"], cron_job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    (container,) = pod(cron_job)["containers"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod(cron_job)["volumes"]}
    rules = cron_job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rules == [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}]
    assert pod(cron_job)["restartPolicy"] == "Never"  # which a failure policy asks for


def started(job, folder, program):
    """The container's shell, with a `python` that is this program."""
    (container,) = pod(job)["containers"]
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.Popen([*container["command"], *container["args"]], env=environment)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_the_shell_of_the_cron_job_makes_success_of_nothing_to_do(cron_job, tmp_path, code, seen):
    assert started(cron_job, tmp_path, f"exit {code}").wait(timeout=20) == seen


def test_the_shell_of_the_cron_job_hands_sigterm_on_and_waits(cron_job, tmp_path):
    program = (
        f"trap 'sleep 0.3; touch {tmp_path}/kept; exit 130' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    )
    process = started(cron_job, tmp_path, program)
    wait_for(tmp_path / "begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 130
    assert (tmp_path / "kept").exists()
