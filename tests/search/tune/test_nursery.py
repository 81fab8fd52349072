"""Workers that are forked with everything loaded, and what is left where none is."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from search.tune import worker_entry
from search.tune.environment import worker_environment
from search.tune.nursery import nursery

PROGRAM = """
    import gc, json, os, sys
    from pathlib import Path
    facts = {"words": sys.argv[1:], "folder": os.getcwd(), "loaded": "torch" in sys.modules, "name": __name__}
    facts |= {"collects": gc.isenabled(), "frozen": gc.get_freeze_count() > 100_000}
    facts |= {name: os.environ.get(name) for name in ("FROM_RAY", "BESIDES", "SEARCH_WORKER_ENTRY")}
    Path(sys.argv[1]).write_text(json.dumps(facts))
"""


def facts_of_a_worker(tmp_path, *, address):
    """What a worker that is begun in a folder says of itself."""
    program, out, folder = tmp_path / "program.py", tmp_path / "facts.json", tmp_path / "folder"
    program.write_text(textwrap.dedent(PROGRAM))
    folder.mkdir()
    asked = {"program": str(program), "environment": {"BESIDES": "2"}, "nursery": address}
    subprocess.run(
        [sys.executable, worker_entry.__file__, str(out), "--word"],
        env=os.environ | {"FROM_RAY": "1", worker_entry.VARIABLE: json.dumps(asked)},
        cwd=folder,
        check=True,
        timeout=60,
    )
    facts = json.loads(out.read_text())
    assert facts.pop("words") == [str(out), "--word"]
    assert facts.pop("folder") == str(folder)
    return facts


def test_a_worker_is_forked_with_everything_loaded_as_it_was_asked_for_and_waited_for(tmp_path):
    with nursery(worker_environment()) as ahead:
        facts = facts_of_a_worker(tmp_path, address=ahead.address)
    assert (facts.pop("collects"), facts.pop("frozen")) == (True, True)
    assert facts == {"loaded": True, "name": "__main__", "FROM_RAY": "1", "BESIDES": "2", "SEARCH_WORKER_ENTRY": None}


def test_where_no_nursery_answers_a_worker_begins_by_itself(tmp_path):
    facts = facts_of_a_worker(tmp_path, address=str(tmp_path / "nobody"))
    assert (facts.pop("collects"), facts.pop("frozen")) == (True, False)
    assert facts == {"loaded": False, "name": "__main__", "FROM_RAY": "1", "BESIDES": "2", "SEARCH_WORKER_ENTRY": None}


def test_a_nursery_ends_with_the_process_that_began_it_and_leaves_nothing(tmp_path):
    code = """
        import os, signal, sys
        from search.tune import nursery
        with nursery.nursery({}) as ahead:
            print(ahead.address, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    address = done.stdout.strip()
    deadline = time.monotonic() + 60
    while _is_listening(address) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _is_listening(address)
    assert not Path(address).parent.exists()


def _is_listening(address):
    return any(line.endswith(address) for line in Path("/proc/net/unix").read_text().splitlines())


@pytest.mark.slow
def test_every_worker_of_a_search_on_this_machine_is_a_fork_and_an_actor_finds_one_ready(tmp_path):
    code = """
        import os, sys
        import ray
        from search.tune.cluster import cluster
        from search.tune.nursery import workers_ahead
        def look():
            return os.getpid(), "trainable.training.fit" in sys.modules, os.environ["OMP_NUM_THREADS"]
        class Actor:
            def look(self):
                return os.getpid(), "search.tune.worker" in sys.modules
        with workers_ahead(address=None) as ahead, cluster(address=None, num_cpus=2, ahead=ahead):
            first = ray.get(ray.remote(look).remote(), timeout=60)
            actor = ray.remote(Actor).remote()
            of_actor = ray.get(actor.look.remote(), timeout=60)
            again = ray.get(ray.remote(look).remote(), timeout=60)
        assert first[1:] == (True, "1"), first
        assert again == first, (first, again)
        assert of_actor[1] and of_actor[0] != first[0], of_actor
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
