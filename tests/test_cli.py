"""The command line: exit codes, one clear line where something is wrong, and the whole chain from data to score."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.command_line import Said, call

from forcing.policy import policy as policy_module
from forcing.policy.checkpoint import load_policy_file, load_training_state
from forcing.policy.policy import Policy

FORCING = Path(sys.executable).with_name("forcing")
# D4RL's reference returns on umaze: a score of 0 and of 100.
UMAZE_MIN, UMAZE_MAX = 23.85, 161.86


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _assert_one_line(answer: Said, code: int, *parts: str) -> None:
    """Exit code, and on stderr nothing but one line with all these parts."""
    assert answer.code == code
    assert answer.err.startswith("forcing: ")
    assert answer.err.count("\n") == 1, answer.err
    assert [part for part in parts if part not in answer.err] == [], answer.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("generate maze2d-umase --out x", "unknown task 'maze2d-umase'; did you mean 'maze2d-umaze'?"),
        ("eval maze2d-medium-mutli", "unknown task 'maze2d-medium-mutli'; did you mean 'maze2d-medium-multi'?"),
        ("eval kitchen", "unknown task 'kitchen'; known are maze2d-umaze-single, "),
        ("train maze2d-umaz --data x", "unknown preset 'maze2d-umaz'; did you mean 'maze2d-umaze'?"),
        ("generate maze2d-umaze --out x --steps 0", "steps must be at least 1, got 0"),
        ("generate maze2d-umaze --out x --steps 5 --seed -1", "seed must be at least 0, got -1"),
        ("eval maze2d-umaze-multi --workers 0", "workers must be at least 1, got 0"),
        ("bench plan --workers 0", "workers must be at least 1, got 0"),
        ("generate maze2d-umaze --out x --workers 0", "workers must be at least 1, got 0"),
        ("bench plan --policy straight", "unknown policy 'straight'; shipped are "),
        ("bench serve --policy maze2d-umase", "unknown policy 'maze2d-umase'; did you mean 'maze2d-umaze'?"),
        ("serve --policy maze2d-umaze --certificate x.pem", "certificate and key belong together; give both, or"),
        ("serve --policy maze2d-umaze --requests-per-s 0", "requests_per_s must be finite and positive, got 0"),
        ("serve --policy maze2d-umaze --max-sessions 0", "max_sessions must be at least 1, got 0"),
        ("calibrate maze2d-umase", "unknown policy 'maze2d-umase'; did you mean 'maze2d-umaze'?"),
        ("calibrate maze2d-umaze --drives 1", "drives must be at least 2, got 1"),
        ("eval maze2d-umaze-multi --policy straight --episodes 0", "episodes must be at least 1, got 0"),
        (
            "eval maze2d-umaze-multi --set tracker.kind=pid",
            "tracker.kind must be one of pursuit, pd, feedback, actions, got 'pid'",
        ),
        (
            "serve --policy maze2d-umaze --set layout.horizon=3",
            "begin with planner, tracker, belief, rolling or memory, got 'layout.horizon=3'",
        ),
        (
            "eval maze2d-umaze-multi --set layout.horizon=3",
            "begin with planner, tracker, belief, rolling or memory, got 'layout.horizon=3'",
        ),
        ("eval maze2d-umaze-multi --policy straight --set tracker.kind=pd", "set changes a policy in this process"),
        ("eval maze2d-umaze-multi --set tracker.knd=pd", "did you mean 'tracker.kind'?"),
        ("eval maze2d-umaze-multi --faults nois=0.1", "fault 'nois=0.1' must be one of noise=SIGMA"),
        ("eval maze2d-umaze-multi --faults noise=0.1@wheel", "unknown sensor 'wheel'; there are position, velocity"),
        ("eval maze2d-umaze-multi --policy straight --faults noise=0.1", "straight needs them all"),
        (
            "eval maze2d-umaze-multi --policy straight --faults nois=0.1",
            "faults lose readings, and straight needs them all",
        ),
        ("bench plan --rows serch", "unknown rows 'serch'; did you mean 'search'?"),
        ("bench ablation maze2d-umaze-multi --data x --rows causl", "unknown rows 'causl'; did you mean 'causal'?"),
        ("train maze2d-umaze --data x --steps 0", "the training budget must be positive, got 0"),
        ("train maze2d-umaze --data x --minutes -1", "the training budget must be positive, got -1"),
        ("train maze2d-umaze --data x --steps 5 --minutes 1", "exactly one of steps and minutes must be given"),
        (
            "train maze2d-umaze --data x --set denoiser.kid=recurrent",
            "unknown setting 'denoiser.kid'; did you mean 'denoiser.kind'?",
        ),
        ("train maze2d-umaze --data x --set denoiser.depth=deep", "denoiser.depth must be a whole number, got 'deep'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(here: Path, line: str, message: str) -> None:
    _assert_one_line(call(line), 2, message)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("eval maze2d-umaze-multi --report folder", "report folder is a folder; name a file in it"),
        ("eval maze2d-umaze-multi --report notes.txt", "report notes.txt is there already and is no such report"),
        ("eval maze2d-umaze-multi --report other.json", "report other.json is there already and is no such report"),
        ("bench serve --report notes.txt", "report notes.txt is there already and is no such report"),
        ("bench train --report other.json", "report other.json is there already and is no such report"),
        ("eval maze2d-umaze-multi --report notes.txt/r.json", "report notes.txt/r.json must lie in a folder, and "),
        (
            "eval maze2d-umaze-multi --report /proc/nope/r.json",
            "report /proc/nope/r.json cannot be written: nothing",
        ),
        ("bench plan --report notes.txt/r.json", "report notes.txt/r.json must lie in a folder, and "),
        ("data dream x --out notes.txt/dreamed.zarr", "out notes.txt/dreamed.zarr must lie in a folder, and "),
        ("data convert x --out notes.txt/x.zarr", "out notes.txt/x.zarr must lie in a folder, and "),
        ("generate maze2d-umaze --out notes.txt/x --steps 9", "out notes.txt/x must lie in a folder, and "),
        ("train maze2d-umaze --data x --out notes.txt/x", "out notes.txt/x must lie in a folder, and "),
        ("eval maze2d-umaze-multi --pictures notes.txt", "pictures notes.txt must be a folder, and is a file"),
        ("clone --data x --out notes.txt", "out notes.txt must be a folder, and is a file"),
        ("clone --data x --out policy", "policy holds a trained policy, which a clone there would hide"),
        ("train maze2d-umaze --data x --out notes.txt", "out notes.txt must be a folder, and is a file"),
        ("train maze2d-umaze --data x --out folder --resume", "folder holds no run to resume; leave out --resume"),
        ("eval ogbench-pointmaze-giant-stitch --policy maze2d-giant", "unknown policy 'maze2d-giant'"),
    ],
)
def test_what_stands_in_the_way_is_found_before_any_work_and_left_as_it_is(here: Path, line: str, message: str) -> None:
    (here / "folder").mkdir()
    (here / "policy").mkdir()
    files = {"notes.txt": "mine", "other.json": '{"a": 1}', "policy/policy.safetensors": "weights"}
    for name, text in files.items():
        (here / name).write_text(text)
    answer = call(line)
    assert answer.code in (1, 2)
    assert message in answer.err
    assert {name: (here / name).read_text() for name in files} == files
    assert sorted(path.name for path in here.iterdir()) == ["folder", "notes.txt", "other.json", "policy"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("", ["generate", "train", "serve", "eval", "policies", "data"]),
        ("trian", ["trian", "train"]),
        ("train maze2d-umaze", ["--data"]),
        ("generate --out x", ["TASK", "what is demonstrated"]),
        ("data info", ["SOURCE"]),
        ("train maze2d-umaze --data x --stepz 3", ["--stepz"]),
        ("train maze2d-umaze --data x --steps many", ["--steps", "many"]),
        ("data", ["info", "check", "convert"]),
    ],
)
def test_what_cannot_be_parsed_is_named_with_exit_code_two(line: str, names: list[str]) -> None:
    answer = call(line)
    assert answer.code == 2
    assert answer.out == ""
    assert [name for name in names if name not in answer.err] == [], answer.err
    assert "Traceback" not in answer.err


def test_help_is_no_error() -> None:
    answer = call("--help")
    assert (answer.code, answer.err) == (0, "")
    assert "train" in answer.out


@pytest.mark.parametrize(
    "line",
    ["data info gone.zarr", "data convert gone --out x", "train maze2d-umaze --data gone", "train --data gone"],
)
def test_a_recording_that_is_not_there_is_a_failure_that_names_it(line: str) -> None:
    _assert_one_line(call(line), 1, "gone", "found nothing", "supported are a store of ours")


def test_an_unknown_policy_is_answered_by_the_nearest(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "maze2d-umaze").mkdir()
    (here / "maze2d-umaze/policy.safetensors").touch()
    monkeypatch.setattr(policy_module, "SHIPPED", here)
    for command in ("eval maze2d-umaze-multi --workers 1 --policy", "serve --policy"):
        answer = call(f"{command} maze2d-umase")
        _assert_one_line(answer, 2, "unknown policy 'maze2d-umase'; did you mean 'maze2d-umaze'?")


def test_a_policy_that_needs_sensors_which_the_task_lacks_names_them() -> None:
    answer = call("eval ogbench-pointmaze-medium-navigate --policy maze2d-medium --episodes 1 --workers 1")
    needs = "policy maze2d-medium needs position, velocity"
    _assert_one_line(answer, 1, f"{needs}; ogbench-pointmaze-medium-navigate has position")


def test_every_served_policy_is_changed_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Policy] = []
    monkeypatch.setattr("forcing.server.serve.run_server", lambda policies, *_, **__: served.extend(policies))
    answer = call("serve --policy maze2d-umaze maze2d-medium --set planner.search=none --set tracker.kind=pd")
    assert answer.code == 0
    assert [policy.name for policy in served] == ["maze2d-umaze", "maze2d-medium"]
    assert {(policy.preset.planner.search, policy.preset.tracker.kind) for policy in served} == {(None, "pd")}


def test_findings_of_a_check_are_its_output_and_errors_among_them_its_exit_code() -> None:
    answer = call("data check gone.zarr")
    assert (answer.code, answer.err) == (1, "")
    assert answer.out.startswith("error: gone.zarr: found nothing")
    assert answer.out.endswith("gone.zarr: 1 errors, 0 warnings\n")


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("generate maze2d-umase --out x", 2, "did you mean 'maze2d-umaze'?"),
        ("data info gone.zarr", 1, "gone.zarr: found nothing"),
    ],
)
def test_the_installed_command_leaves_as_its_function_does(line: str, code: int, message: str) -> None:
    run = subprocess.run([FORCING, *shlex.split(line)], capture_output=True, text=True, check=False)
    _assert_one_line(Said(run.returncode, run.stdout, run.stderr), code, message)


@dataclass(frozen=True)
class Chain:
    """A folder in which everything was run once, and what was answered."""

    folder: Path
    answers: dict[str, Said]


COMMANDS = {
    "generate": "generate maze2d-umaze --out recordings --steps 6000 --workers 1",
    "info": "data info recordings/forcing/maze2d-umaze-v0",
    "check": "data check recordings/forcing/maze2d-umaze-v0",
    "convert": "data convert recordings/forcing/maze2d-umaze-v0 --out umaze.zarr",
    "train": "train maze2d-umaze --data umaze.zarr --steps 20 --out runs/mine",
    "eval": "eval maze2d-umaze-multi --policy runs/mine --episodes 1 --seed 7 --workers 1 --report r.json",
    "policies": "policies",
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder, answers = tmp_path_factory.mktemp("chain"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, line in COMMANDS.items():
            answers[name] = call(line)
            assert answers[name].code == 0, (line, answers[name])
    yield Chain(folder, answers)
    shutil.rmtree(folder)


def test_a_recording_is_made_described_checked_and_converted(chain: Chain) -> None:
    info, check = chain.answers["info"].out, chain.answers["check"].out
    assert "6000" in info.replace(",", "")
    assert [name for name in ("position", "velocity", "action") if name not in info] == []
    assert "recordings/forcing/maze2d-umaze-v0: 0 errors" in check
    assert "umaze.zarr" in chain.answers["convert"].out
    assert (chain.folder / "umaze.zarr" / "zarr.json").is_file()


def test_a_run_says_where_its_policy_is_and_how_it_was_made(chain: Chain) -> None:
    assert "runs/mine/policy.safetensors" in chain.answers["train"].out
    card = load_policy_file(chain.folder / "runs/mine/policy.safetensors").card
    assert (card["task"], card["steps"], card["seed"], card["data"]) == ("maze2d-umaze", 20, 0, "umaze.zarr")
    assert card["data_steps"] == 6000
    assert card["command"] == "forcing train maze2d-umaze --data umaze.zarr --out runs/mine --steps 20 --seed 0"


def test_settings_change_the_recipe_and_are_told_by_the_card(copy: Path) -> None:
    line = "train maze2d-umaze --data umaze.zarr --steps 2 --out runs/cell --set denoiser.kind=recurrent"
    assert call(f"{line} --set denoiser.width=16 --set optimiser.weight=fused_snr").code == 0
    file = load_policy_file(copy / "runs/cell/policy.safetensors")
    denoiser, optimiser = file.preset.denoiser, file.preset.optimiser
    assert (file.preset.name, denoiser.kind, denoiser.width) == ("maze2d-umaze", "recurrent", 16)
    assert optimiser.weight == "fused_snr"
    assert str(file.card["command"]).endswith(
        " --seed 0 --set denoiser.kind=recurrent --set denoiser.width=16 --set optimiser.weight=fused_snr"
    )
    resumed = call(f"{line} --resume")
    assert resumed.code == 1
    assert "denoiser.width of the saved run is 16, of this one 96" in resumed.err


def test_a_calibrated_policy_is_the_same_one_and_says_how_it_was_measured(here: Path) -> None:
    mine = here / "mine"
    mine.mkdir()
    shutil.copy(policy_module.SHIPPED / "maze2d-umaze" / "policy.safetensors", mine)
    before = load_policy_file(mine / "policy.safetensors")
    answer = call("calibrate mine --drives 2 --seed 5")
    assert (answer.code, "mine/policy.safetensors" in answer.out) == (0, True), answer
    after = load_policy_file(mine / "policy.safetensors")
    assert after.revision == before.revision
    assert after.spread is not None
    told = after.card["spread"]
    assert (told["drives"], told["seed"], told["command"]) == (2, 5, "forcing calibrate mine --drives 2 --seed 5")


def test_the_report_of_an_evaluation_has_every_field_and_adds_up(chain: Chain) -> None:
    report = json.loads((chain.folder / "r.json").read_text())
    assert (report["task"], report["policy"]) == ("maze2d-umaze-multi", "runs/mine")
    assert (report["episodes"], report["seed"]) == (1, 7)
    assert report["revision"] == load_policy_file(chain.folder / "runs/mine/policy.safetensors").revision
    (episode,) = report["episodes_detail"]
    assert episode["seed"] == 7
    assert report["return_mean"] == episode["return"]
    assert 0 <= episode["return"] <= 300
    normalized = 100 * (episode["return"] - UMAZE_MIN) / (UMAZE_MAX - UMAZE_MIN)
    assert report["normalized_mean"] == pytest.approx(normalized)
    assert (report["return_sem"], report["normalized_sem"]) == (None, None)  # one episode has no spread
    assert report["success_rate"] == float(episode["return"] > 0)
    assert report["steps_to_goal_mean"] == episode["steps_to_goal"]
    assert 0 < report["plan_ms_p50"] <= report["plan_ms_p99"]
    assert report["command"] == "forcing " + COMMANDS["eval"]
    assert report["plans_per_episode"] == episode["plans"] <= 19  # 300 steps, one plan every 16
    table = chain.answers["eval"].out
    assert [part for part in ("maze2d-umaze-multi", "runs/mine", "straight", "r.json") if part not in table] == []


def test_policies_trained_here_are_listed(chain: Chain) -> None:
    listed = chain.answers["policies"].out
    assert [part for part in ("runs/mine", "maze2d-umaze", "umaze.zarr", "not scored") if part not in listed] == []


@pytest.fixture
def copy(chain: Chain, here: Path) -> Path:
    """Store and run of the chain in the folder where commands run, to be spoiled."""
    shutil.copytree(chain.folder / "umaze.zarr", here / "umaze.zarr")
    shutil.copytree(chain.folder / "runs", here / "runs")
    return here


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("line", ["data info umaze.zarr", "train maze2d-umaze --data umaze.zarr --steps 2 --out new"])
def test_a_truncated_store_is_a_failure_that_names_it(copy: Path, line: str) -> None:
    largest = max((copy / "umaze.zarr").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    largest.write_bytes(largest.read_bytes()[:-100])
    _assert_one_line(call(line), 1, "umaze.zarr")
    assert not (copy / "new").exists()


def test_a_flipped_byte_in_a_policy_is_a_failure_that_names_the_file(copy: Path) -> None:
    _flip(copy / "runs/mine/policy.safetensors")
    for command in ("eval maze2d-umaze-multi --episodes 1 --workers 1 --policy", "serve --policy"):
        _assert_one_line(call(f"{command} runs/mine"), 1, "runs/mine/policy.safetensors", "damaged")
    listed = call("policies")
    assert listed.code == 0
    assert "damaged" in listed.out


def test_a_flipped_byte_in_a_training_state_is_a_failure_that_names_the_file(copy: Path) -> None:
    _flip(copy / "runs/mine/resume.safetensors")
    answer = call("train maze2d-umaze --data umaze.zarr --steps 30 --out runs/mine --resume")
    assert answer.code == 1
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("forcing: runs/mine/resume.safetensors is damaged")


def test_a_run_is_neither_overwritten_nor_resumed_by_accident(copy: Path) -> None:
    before = (copy / "runs/mine/policy.safetensors").read_bytes()
    answer = call("train maze2d-umaze --data umaze.zarr --steps 30 --out runs/mine")
    _assert_one_line(answer, 2, "runs/mine holds a run already; add --resume, or choose another --out")
    assert (copy / "runs/mine/policy.safetensors").read_bytes() == before


def test_the_first_ctrl_c_saves_and_the_run_goes_on_from_there(copy: Path) -> None:
    default = signal.getsignal(signal.SIGINT)

    def press() -> None:
        patience = time.monotonic() + 20
        while signal.getsignal(signal.SIGINT) is default and time.monotonic() < patience:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    line = "train maze2d-umaze --data umaze.zarr --out runs/stopped"
    answer = call(f"{line} --minutes 0.05")
    presser.join()
    assert answer.code == 1
    step = load_training_state(copy / "runs/stopped/resume.safetensors").facts["step"]
    last = answer.err.strip().splitlines()[-1]
    assert last == f"forcing: stopped at step {step}; --resume goes on from there"
    assert signal.getsignal(signal.SIGINT) is default
    assert load_policy_file(copy / "runs/stopped/policy.safetensors").card["steps"] == step
    assert call(f"{line} --resume").code == 0
    card = load_policy_file(copy / "runs/stopped/policy.safetensors").card
    assert card["steps"] > step
    assert card["command"] == f"forcing {line} --minutes 0.05 --seed 0"


def _alive(group: int) -> list[str]:
    """Processes of a group; not those that have ended and wait to be reaped."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [row[2] for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("eval maze2d-medium-multi --episodes 500 --workers 2", ""),
        ("eval maze2d-medium-multi --episodes 500 --workers 2 --served", "serving maze2d-medium"),
        ("demo --episodes 500 --out out", "episode 1 of"),
    ],
)
def test_ctrl_c_ends_an_evaluation_with_one_line_and_no_process_left(here: Path, line: str, sign: str) -> None:
    # A shell that runs the tests in the background has them ignore Ctrl-C, and a child would inherit that.
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [str(FORCING), *shlex.split(line)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, deaf)
    assert run.stdout is not None
    try:
        if sign:
            while sign not in run.stdout.readline():
                assert run.poll() is None
        else:
            while len(_alive(run.pid)) < 3:  # nothing is printed while workers start
                assert run.poll() is None
            time.sleep(1.5)
        os.killpg(run.pid, signal.SIGINT)
        out, err = run.communicate(timeout=30)
        _assert_one_line(Said(run.returncode, out, err), 1, "forcing: stopped")
        patience = time.monotonic() + 5
        while _alive(run.pid) and time.monotonic() < patience:
            time.sleep(0.05)
        assert _alive(run.pid) == []
    finally:
        if _alive(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


@pytest.mark.parametrize(("line", "module"), [("eval maze2d-umaze-multi", "evaluate"), ("bench plan", "bench_plan")])
def test_sums_are_taken_in_the_same_order_on_every_machine(
    line: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    function = {"evaluate": "evaluate_policy", "bench_plan": "run_bench"}[module]
    monkeypatch.setattr(f"forcing.eval.{module}.{function}", lambda *_, **__: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert call(line).code == 0
    torch.set_num_threads(before)
    assert threads == [1]


def test_generate_refuses_a_disk_that_is_too_small_before_it_begins(here: Path) -> None:
    answer = call("generate maze2d-umaze --out data --steps 1000000000000")
    _assert_one_line(answer, 1, "data needs about 500000000 MB for 1000000000000 steps")


def test_training_on_a_gpu_that_is_not_there_is_wrong_usage(here: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    answer = call("train maze2d-umaze --data nothing --device cuda")
    _assert_one_line(answer, 2, "device cuda is not available here; leave out --device")
