# SPDX-License-Identifier: Apache-2.0
"""`hanok net` without privilege: what it says, what it keeps, and its answers to wrong questions."""

import json
import os
import shutil
import signal
import socket
import subprocess

import pytest
from conftest import error_line, run_hanok


@pytest.fixture
def net(hanok, tmp_path, monkeypatch):
    """Runs `hanok net ...` with folders of its own; ends what it started."""
    monkeypatch.setenv("HANOK_VMS", str(tmp_path / "vms"))
    monkeypatch.setenv("HANOK_RUNTIME", str(tmp_path / "run"))

    def do(*words, status=0):
        result = run_hanok(hanok, "net", *words)
        assert result.returncode == status, f"{words}: {result.stderr}"
        return result

    yield do
    for network in json.loads(run_hanok(hanok, "net", "list", "--json").stdout):
        if network["running"]:
            run_hanok(hanok, "net", "stop", network["name"])


def test_life(net):
    assert json.loads(net("list", "--json").stdout) == []
    net("create", "lan")
    net("create", "wan", "--nat", "--network", "10.9.0.0/16")
    listed = {n["name"]: n["running"] for n in json.loads(net("list", "--json").stdout)}
    assert listed == {"lan": True, "wan": True}
    assert "NETWORK" in net("list").stdout and "default" in net("show", "lan").stdout
    shown = json.loads(net("show", "wan", "--json").stdout)
    assert [p["name"] for p in shown["ports"]] == ["nat"]
    assert "stop lan" in error_line(net("rm", "lan", status=125))
    assert "there is a network" in error_line(net("create", "lan", status=125))
    net("stop", "lan")
    assert "hanok net start lan" in error_line(net("show", "lan", status=125))
    net("start", "lan")
    net("stop", "lan")
    net("rm", "lan")
    assert "hanok net create lan" in error_line(net("show", "lan", status=125))


def test_groups_are_kept(net):
    net("create", "lan")
    net("port-group", "set", "lan", "dmz", "--vlan", 100, "--promiscuous", "yes")
    net("port-group", "set", "lan", "dmz", "--forged", "yes")
    net("port-group", "set", "lan", "up", "--trunk", "1,100-199,4094")
    groups = {g["name"]: g for g in json.loads(net("show", "lan", "--json").stdout)["groups"]}
    assert groups["dmz"] == {"name": "dmz", "vlan": 100, "promiscuous": True, "forged": True}
    assert groups["up"]["trunk"] == "1,100-199,4094"
    assert "trunk 1,100-199,4094" in net("show", "lan").stdout
    net("port-group", "set", "lan", "up", "--guest-tagging")
    net("port-group", "rm", "lan", "dmz")
    net("stop", "lan")
    net("start", "lan")
    groups = json.loads(net("show", "lan", "--json").stdout)["groups"]
    assert groups == [{"name": "default"}, {"name": "up", "guest_tagging": True}]
    assert "there is no such one" in error_line(net("port-group", "rm", "lan", "dmz", status=125))


def test_a_killed_process_leaves_nothing_in_the_way(net, hanok, tmp_path):
    net("create", "lan", "--nat")
    net("stop", "lan")
    process = subprocess.Popen([hanok, "net", "start", "lan", "--foreground"], stdout=subprocess.PIPE)
    assert b"runs" in process.stdout.readline()
    assert "serves it already" in error_line(net("start", "lan", status=125))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    net("start", "lan")
    assert json.loads(net("show", "lan", "--json").stdout)["name"] == "lan"


def test_forwards_without_guests(net):
    """A forward listens on the host at once, and stops when it is removed."""
    net("create", "lan", "--nat")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    net("forward", "add", "lan", f"tcp:{port}-22")
    socket.create_connection(("127.0.0.1", port), 5).close()
    net("forward", "rm", "lan", f"tcp:127.0.0.1:{port}-22")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "what to do"),
        (["crate", "x"], "did you mean create"),
        (["create"], "NAME"),
        (["create", "x", "--vlan", "4095"], "--vlan"),
        (["create", "x", "--nat", "--tap", "y"], "at a time"),
        (["create", "x", "--group", "y"], "--nat, --tap or --bridge"),
        (["shape", "x", "0", "--loss", "101"], "--loss 101"),
        (["shape", "x", "0", "--rate", "fast"], "--rate fast"),
        (["port-group", "set", "x", "g", "--forged", "maybe"], "yes or no"),
        (["forward", "add", "x", "tcp:22"], "tcp:127.0.0.1:2222-22"),
        (["forward", "add", "x", "tcp:[::1]:80-10.0.2.15:80"], "both"),
        (["forward", "add", "x", "tcp:70000-80"], "tcp:70000-80"),
        (["capture", "x", "0"], "--stop"),
    ],
)
def test_wrong_words(net, words, says):
    assert says in error_line(net(*words, status=2))


@pytest.mark.parametrize(
    "words, says",
    [
        (["create", "a/b"], "letters"),
        (["create", "x", "--nat", "--network", "10.0.2.0"], "10.0.2.0/24"),
        (["create", "x", "--nat", "--network", "10.0.2.0/31"], "prefix"),
        (["create", "x", "--nat", "--mac", "01:00:00:00:00:01"], "02:00:00:00:00:01"),
        (["create", "x", "--bridge", "nothere0"], "ip link"),
        (["create", "x", "--tap", "a-name-that-is-far-too-long"], "15 letters"),
        (["create", "x", "--nat", "--group", "none"], "no such one"),
    ],
)
def test_what_cannot_be_made(net, words, says):
    if "--bridge" in words and os.geteuid() != 0:
        says = "setcap"
    assert says in error_line(net(*words, status=125))
    # And nothing is left of it.
    assert json.loads(net("list", "--json").stdout) == []


def test_bad_trunks(net):
    net("create", "lan")
    for trunk in ("100,", "5-3", "4095", "x"):
        assert "trunk" in error_line(net("port-group", "set", "lan", "g", "--trunk", trunk, status=125))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
@pytest.mark.parametrize("option, says", [("--tap", "ip tuntap add"), ("--bridge", "setcap cap_net_raw+ep")])
def test_no_permission(hanok, tmp_path, option, says):
    """Nobody is told what the administrator has to do."""
    folder = tmp_path / "nobody"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    copy = shutil.copy(hanok, folder / "program")
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o11)
    result = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", copy, "net", "create", "x", option, "lo"],
        env={"HANOK_VMS": str(folder / "vms"), "HANOK_RUNTIME": str(folder / "run"), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert result.returncode == 125
    assert "no permission" in error_line(result) and says in error_line(result)
