# SPDX-License-Identifier: Apache-2.0
"""Virtual machines in folders: the verbs that make, run, steer and remove them, and their control sockets.

Most tests use tests/cli_guest.S, which does what the letters of its command line say and starts at once. The
one marked `slow` installs a Debian and logs in.
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pexpect
import pytest
from conftest import TIMEOUT_SCALE, TOP, run_hanok

PATIENCE = 30 * TIMEOUT_SCALE
VERBS = "create start stop pause resume reset balloon ps console logs rm clone snapshot".split()


class House:
    """A place for machines and their sockets, and the program on it."""

    def __init__(self, hanok, kernel, folder, runtime):
        self.hanok, self.kernel = hanok, kernel
        self.folder, self.runtime = folder, runtime
        self.env = dict(os.environ, HANOK_VMS=str(folder), HANOK_RUNTIME=str(runtime))

    def __call__(self, *arguments, timeout=60, **more):
        return subprocess.run(
            [self.hanok, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout * TIMEOUT_SCALE,
            env=self.env,
            check=False,
            **more,
        )

    def ok(self, *arguments, **more):
        result = self(*arguments, **more)
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
        return result.stdout

    def refused(self, *arguments, status=125, **more):
        """The one line of error that a verb gives."""
        result = self(*arguments, **more)
        assert result.returncode == status, f"{arguments}: {result.returncode} {result.stderr}"
        lines = result.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("hanok: "), result.stderr
        return lines[0]

    def create(self, name, orders="oe", *options):
        """A machine without a disk that does what the orders say."""
        self.ok("create", name, "--disk", "none", "--memory", "16M", "--kernel", self.kernel,
                "--append", orders, *options)  # fmt: skip
        return self.folder / name

    def ps(self, *options):
        return {entry["name"]: entry for entry in json.loads(self.ok("ps", "--json", *options))}

    def console(self, name):
        child = pexpect.spawn(
            str(self.hanok), ["console", name], env=self.env, encoding="utf-8", echo=False, timeout=PATIENCE
        )
        child.delaybeforesend = None
        return child

    def talk(self, name):
        """A connection to a machine's control socket."""
        pid, path = (self.folder / name / f"{name}.vmx.lck").read_text().split()
        assert int(pid) > 0
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.settimeout(PATIENCE)
        return connection


@pytest.fixture
def house(hanok, kernel, tmp_path):
    # Sockets have short paths, pytest's folders long ones.
    runtime = Path(tempfile.mkdtemp(prefix="hanok-", dir="/tmp"))
    place = House(hanok, kernel, tmp_path / "vms", runtime)
    yield place
    for entry in json.loads(place.ok("ps", "--json")):
        if entry.get("pid"):
            os.kill(entry["pid"], signal.SIGKILL)
    shutil.rmtree(runtime)


def ask(connection, **request):
    connection.sendall(json.dumps(request).encode() + b"\n")
    return json.loads(connection.makefile("rb", buffering=0).readline())


def wait_until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


# ---- words ----


@pytest.mark.parametrize("verb", VERBS)
def test_help(hanok, verb):
    result = run_hanok(hanok, verb, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert f"hanok {verb}" in result.stdout and "Exit status: 0" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(hanok, verb):
    for option in set(re.findall(r"(?<![\w-])--[a-z-]+[a-z]", run_hanok(hanok, verb, "--help").stdout)):
        result = run_hanok(hanok, verb, f"{option}=", "--levitate")
        assert "there is no such option" not in result.stderr or "--levitate" in result.stderr, option


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["create"], "what shall it be called?"),
        (["create", "a", "b"], "one word too many"),
        (["create", ".a"], "not a name"),
        (["create", "a|b"], "bars"),
        (["create", "a", "--memory", "1.5G"], "--memory 1.5G"),
        (["create", "a", "--cpus", "0"], "--cpus 0"),
        (["create", "a", "--disk", "8Q"], "'Q'"),
        (["create", "a", "--disk", "8G,fluffy"], "'fluffy'"),
        (["create", "a", "--disk", "none", "--os", "debian"], "--disk none"),
        (["create", "a", "--os", "plan9"], "there is only debian"),
        (["create", "a", "--controller", "scsi2"], "pvscsi"),
        (["create", "a", "--os", "debian", "--kernel", "k"], "its own kernel"),
        (["create", "a", "--nic", "wifi"], "--nic wifi"),
        (["create", "a", "--nic", "nat,model=ne2000"], "ne2000"),
        (["create", "a", "--nic", "none", "--nic", "nat"], "--nic none"),
        (["create", "a", "--nic", "none,forward=tcp:2222-22"], "only NAT forwards"),
        (["create", "a", "--os", "debian", "--nic", "nat,model=e1000"], "take vmxnet3 or virtio"),
        (["start"], "which machine?"),
        (["start", "a", "b"], "one machine at a time"),
        (["stop", "--timeout", "soon", "a"], "--timeout soon"),
        (["stop", "--forse", "a"], "did you mean --force?"),
        (["ps", "a"], "one word too many"),
        (["console"], "which machine?"),
        (["logs", "-x", "a"], "-x"),
    ],
)
def test_usage(house, arguments, says):
    assert says in house.refused(*arguments, status=2)
    assert not house.folder.exists()


@pytest.mark.parametrize("verb", ["run", "start", "stop", "pause", "console", "logs", "rm"])
def test_no_such_machine(house, verb):
    assert "no virtual machine of this name" in house.refused(verb, "nobody")
    assert "nowhere/at/all" in house.refused(verb, "./nowhere/at/all")


# ---- create ----


def test_create(house):
    house.ok("create", "mail", "--memory", "256M", "--cpus", "2", "--disk", "20M", "--disk", "4M,thick")
    text = (house.folder / "mail/mail.vmx").read_text()
    for line in (
        'displayName = "mail"',
        'memsize = "256"',
        'numvcpus = "2"',
        'scsi0.virtualDev = "pvscsi"',
        'scsi0:0.fileName = "mail.vmdk"',
        'scsi0:1.fileName = "mail_1.vmdk"',
    ):
        assert line in text
    for name, bytes_ in (("mail.vmdk", 20 << 20), ("mail_1.vmdk", 4 << 20)):
        info = subprocess.run(
            ["qemu-img", "info", "--output=json", house.folder / "mail" / name], capture_output=True, check=True
        )
        assert json.loads(info.stdout)["virtual-size"] == bytes_
    assert (house.folder / "mail/mail_1-flat.vmdk").stat().st_blocks * 512 >= 4 << 20
    assert "it is there already" in house.refused("create", "mail")
    # Nothing boots from a disk yet, and that is said.
    assert "hanok.kernel" in house.refused("run", "mail")
    assert house.ps("--all")["mail"]["state"] == "stopped"


def test_create_with_cards(house):
    """NAT if nobody says; what `run` takes; none. VMware's keys, and the machine starts with them."""

    def cards(name, *nics):
        words = [word for nic in nics for word in ("--nic", nic)]
        house.ok("create", name, "--disk", "none", "--kernel", house.kernel, "--append", "op", *words)
        return [line for line in (house.folder / name / f"{name}.vmx").read_text().splitlines() if "ethernet" in line]

    assert cards("a") == [
        'ethernet0.present = "TRUE"', 'ethernet0.virtualDev = "vmxnet3"', 'ethernet0.addressType = "generated"',
        'ethernet0.connectionType = "nat"',
    ]  # fmt: skip
    assert cards("b", "none") == []
    assert cards("c", "nat,model=virtio,mac=00:0c:29:00:00:07,forward=tcp:2222-22", "switch=lab,group=g,model=e1000") == [
        'ethernet0.present = "TRUE"', 'ethernet0.virtualDev = "virtio"', 'ethernet0.addressType = "static"',
        'ethernet0.address = "00:0c:29:00:00:07"', 'ethernet0.connectionType = "nat"',
        'hanok.ethernet0.forwards = "tcp:2222-22"', 'ethernet1.present = "TRUE"', 'ethernet1.virtualDev = "e1000"',
        'ethernet1.addressType = "generated"', 'ethernet1.connectionType = "custom"', 'ethernet1.vnet = "lab"',
        'ethernet1.networkName = "g"',
    ]  # fmt: skip
    house.ok("run", "a")
    assert "network card 0 (vmxnet3)" in house.ok("logs", "a") and "NAT" in house.ok("logs", "a")
    assert "network lab" in house.refused("run", "c")


def test_create_failure_leaves_nothing(house):
    assert "no/such/kernel" in house.refused("create", "mail", "--kernel", "no/such/kernel")
    assert list(house.folder.iterdir()) == []
    house.refused("create", "mail", "--disk", "8M,type=cardboard")
    assert list(house.folder.iterdir()) == []


def test_create_in_a_folder(house, tmp_path):
    """A name with a slash is the folder itself; it is found by folder, by .vmx and, while it runs, by name."""
    place = tmp_path / "lab one"
    house.ok("create", place, "--disk", "none", "--kernel", house.kernel, "--append", "oe")
    house.ok("start", place)
    house.ok("pause", place / "lab one.vmx")
    house.ok("resume", "LAB ONE")
    house.ok("stop", "--force", "lab one")
    assert "no virtual machine" in house.refused("start", "lab one")


# ---- run, start, stop ----


def test_run(house, engine):
    house.create("mail", "op", "--cpus", "1")
    result = house("run", "mail", "--engine", engine)
    assert result.returncode == 0 and "hello" in result.stdout
    # Options go before what the .vmx says, and may stand anywhere.
    assert house("run", "mail", "--append", "ot").returncode == 3
    assert house("run", "--append", "os", "mail", "--timeout", "0.5").returncode == 124


def test_start_and_stop(house):
    folder = house.create("mail")
    assert house("start", "mail").stdout == ""
    status = house.ps()["mail"]
    assert status["state"] == "running" and status["cpus"] == 1 and status["memory_bytes"] == 16 << 20
    assert status["vmx"] == str(folder / "mail.vmx") and status["resets"] == 0
    assert re.search(rf"mail +running +{status['pid']} +1 +16 MiB", house.ok("ps"))
    assert stat.S_IMODE(next(house.runtime.glob("*.sock")).stat().st_mode) == 0o600
    # It does not listen to its power button.
    assert "--force" in house.refused("stop", "--timeout", "1", "mail", status=124)
    house.ok("stop", "--force", "mail")
    assert house.ps() == {}
    assert list(house.runtime.glob("*.sock")) == []
    assert sorted(path.name for path in folder.iterdir()) == ["mail.log", "mail.vmx"]
    # Stopping what is stopped is no failure.
    house.ok("stop", "mail")
    assert "it does not run" in house.refused("pause", "mail")


def test_a_guest_that_crashes(house):
    house.create("mail", "et")
    house.ok("start", "mail")
    console = house.console("mail")
    console.send("q")
    console.expect("mail has ended")
    console.wait()
    assert console.exitstatus == 0
    wait_until(lambda: house.ps() == {})
    assert "ended (crashed)" in house.ok("logs", "mail")


def test_runs_only_once(house):
    folder = house.create("mail")
    house.ok("start", "mail")
    pid = house.ps()["mail"]["pid"]
    for verb in ("start", "run"):
        line = house.refused(verb, "mail")
        assert "it runs already" in line and str(pid) in line
    assert "it runs" in house.refused("rm", "--yes", "mail")
    assert house.ps()["mail"]["pid"] == pid
    # The log is the one of the life that goes on.
    assert not (folder / "mail-0.log").exists()


def test_vmware_has_it_open(house):
    folder = house.create("mail")
    (folder / "mail.vmx.lck").mkdir()
    assert "VMware has this machine open" in house.refused("start", "mail")


def test_killed(house):
    """A machine whose process was killed is gone from the list, and starts again."""
    house.create("mail")
    for _ in range(2):
        house.ok("start", "mail")
        os.kill(house.ps()["mail"]["pid"], signal.SIGKILL)
        wait_until(lambda: house.ps() == {})
        assert list(house.runtime.glob("*.sock")) == []
        assert house.ps("--all")["mail"]["state"] == "stopped"
    house.ok("start", "mail")
    house.ok("stop", "--force", "mail")


def test_start_fails(house):
    """Why a machine did not start is said by `start`, not only in its log."""
    folder = house.create("mail")
    vmx = folder / "mail.vmx"
    good = vmx.read_text()
    for text, says in (
        (good + 'memsize = "1"\n', "memsize is there twice"),
        (good.replace('memsize = "16"', 'memsize = "many"'), 'memsize = "many"'),
        (good + "\0", "bytes 0"),
        (good + 'scsi0.present = "TRUE"\nscsi0.virtualDev = "buslogic"\n', "lsilogic"),
        (good + 'ide0:0.present = "TRUE"\nide0:0.fileName = "none.vmdk"\n', "none.vmdk"),
        (good + 'hanok.initrd = "none"\n', "none"),
    ):
        vmx.write_text(text)
        assert says in house.refused("start", "mail")
        assert says in house.refused("run", "mail")
        assert says in house.ok("logs", "mail")
    vmx.write_text(good)
    house.ok("start", "mail")


def test_network_card_is_said(house):
    folder = house.create("mail", "op", "--nic", "none")
    with open(folder / "mail.vmx", "a", encoding="utf-8") as vmx:
        vmx.write('ethernet0.present = "TRUE"\nethernet0.virtualDev = "virtio"\n')
    assert "network bridged: there is no such network" in house.refused("run", "mail")
    with open(folder / "mail.vmx", "a", encoding="utf-8") as vmx:
        vmx.write('ethernet0.connectionType = "nat"\n')
    assert house("run", "mail").returncode == 0
    assert "network card 0 (virtio), 00:0c:29:" in house.ok("logs", "mail")


def test_names_do_not_steer_the_terminal(house):
    """A .vmx from elsewhere may say anything; what is shown of it holds no control characters."""
    folder = house.create("mail")
    vmx = folder / "mail.vmx"
    good = vmx.read_text()
    vmx.write_text(good.replace('displayName = "mail"', 'displayName = "|1B[31mred|0A|07"'))
    house.ok("start", "mail")
    assert "?[31mred??" in house.ok("ps")
    house.ok("stop", "--force", "mail")
    assert "\x1b" not in house.ok("logs", "mail")
    vmx.write_text(good.replace('memsize = "16"', 'memsize = "|1B[31m"'))
    assert "\x1b" not in house.refused("start", "mail")


def test_pause_resume_reset(house):
    house.create("mail", "oe")
    house.ok("start", "mail")
    console = house.console("mail")
    console.expect("hello")
    for _ in range(2):
        house.ok("pause", "mail")
    assert house.ps()["mail"]["state"] == "paused"
    assert "resume it first" in house.refused("stop", "mail")
    console.send("z")
    assert console.expect(["z", pexpect.TIMEOUT], timeout=1) == 1
    house.ok("resume", "mail")
    console.expect("z")
    house.ok("reset", "mail")
    console.expect("hello")
    assert house.ps()["mail"]["resets"] == 1
    console.send("\x01x")
    console.expect("detached; mail goes on")


def test_signal(house):
    """A machine in the background ends by SIGTERM, and tidies up."""
    house.create("mail")
    house.ok("start", "mail")
    os.kill(house.ps()["mail"]["pid"], signal.SIGTERM)
    wait_until(lambda: list(house.runtime.glob("*.sock")) == [])
    wait_until(lambda: "ended (quit): ended by a signal: Terminated" in house.ok("logs", "mail"))


# ---- console ----


def test_console_is_shared(house):
    house.create("mail", "oe")
    house.ok("start", "mail")
    first = house.console("mail")
    first.expect("hello")
    first.send("ab")
    first.expect("ab")
    second = house.console("mail")
    second.expect("hello[\\s\\S]*ab")  # from before it was attached
    second.send("c\x01\x01d")
    for console in (first, second):
        console.expect_exact("c\x01d")
    assert house.ps()["mail"]["consoles"] == 2
    first.send("\x01h")
    first.expect("Ctrl-A x.*detach")
    first.send("\x01x")
    first.expect("detached; mail goes on")
    first.wait()
    assert first.exitstatus == 0
    wait_until(lambda: house.ps()["mail"]["consoles"] == 1)
    second.send("e")
    second.expect("e")
    house.ok("stop", "--force", "mail")
    second.expect("mail has ended")


def test_console_without_a_terminal(house):
    house.create("mail", "ofep")
    house.ok("start", "mail")
    child = subprocess.Popen(
        [house.hanok, "console", "--replay", "1M", "mail"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=house.env,
    )
    out, err = child.communicate(b"xyzq", timeout=PATIENCE)
    assert child.returncode == 0 and err == b""
    assert b"0123456789" * 1000 in out and out.rstrip().endswith(b"xyz")


def test_console_is_kept_in_the_foreground(house):
    """A machine on a terminal can be looked into from another."""
    house.create("mail", "oe")
    child = pexpect.spawn(str(house.hanok), ["run", "mail"], env=house.env, encoding="utf-8", timeout=PATIENCE)
    child.expect("hello")
    console = house.console("mail")
    console.expect("hello")
    console.send("k")
    child.expect("k")
    child.send("\x01x")
    console.expect("mail has ended")
    child.expect(pexpect.EOF)


def test_console_that_stalls(house):
    """Somebody who is attached and does not read holds nobody up."""
    house.create("mail", "ffe")
    house.ok("start", "mail")
    stalled = house.talk("mail")
    stalled.sendall(b'{"do":"attach"}\n')
    console = house.console("mail")
    console.send("after all that")
    console.expect("after all that", timeout=4 * PATIENCE)
    stalled.close()


# ---- logs, rm ----


def test_logs(house):
    folder = house.create("mail")
    for _ in range(6):
        house.ok("start", "mail")
        house.ok("stop", "--force", "mail")
    assert sorted(path.name for path in folder.glob("*.log")) == [
        "mail-0.log",
        "mail-1.log",
        "mail-2.log",
        "mail.log",
    ]
    log = house.ok("logs", "mail")
    for words in ("starts mail", "engine ", "16 MiB of memory, 1 CPUs", "running", "ended (quit)"):
        assert words in log
    assert len(re.findall("starts mail", house.ok("logs", "--old", "mail"))) == 4
    assert stat.S_IMODE((folder / "mail.log").stat().st_mode) == 0o600


def test_logs_follow(house):
    house.create("mail")
    house.ok("start", "mail")
    child = pexpect.spawn(
        str(house.hanok), ["logs", "-f", "mail"], env=house.env, encoding="utf-8", timeout=PATIENCE
    )
    child.expect("running")
    house.ok("pause", "mail")
    child.expect("paused")
    house.ok("stop", "--force", "mail")
    child.expect(r"ended \(quit\)")
    child.expect(pexpect.EOF)


def test_rm(house):
    folder = house.create("mail", "oe")
    house.ok("create", "other", "--disk", "8M,thick")
    assert "say --yes" in house.refused("rm", "mail")
    house.ok("start", "mail")
    (folder / "notes.txt").write_text("mine")
    result = house("rm", "--force", "mail")
    assert result.returncode == 0 and "stays: other files are in it" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    house.ok("rm", "--yes", "other")
    assert not (house.folder / "other").exists()
    assert house.kernel.exists()


def test_rm_asks(house):
    folder = house.create("mail")
    for answer, there in (("n", True), ("y", False)):
        child = pexpect.spawn(str(house.hanok), ["rm", "mail"], env=house.env, encoding="utf-8", timeout=PATIENCE)
        child.expect(r"\[y/N\]")
        child.sendline(answer)
        child.expect(pexpect.EOF)
        assert folder.exists() == there


# ---- the control socket ----


def test_control_socket(house):
    house.create("mail", "oe")
    house.ok("start", "mail")
    connection = house.talk("mail")
    assert ask(connection, do="status", id=5)["id"] == 5
    wait_until(lambda: "pio-out" in ask(connection, do="exits")["cpus"][0]["exits"])
    assert ask(connection, do="exits")["cpus"][0]["exits"]["pio-out"]["count"] > 0
    assert ask(connection, do="disks") == {"ok": True, "disks": []}
    (nic,) = ask(connection, do="nics")["nics"]
    assert nic["model"] == "vmxnet3" and nic["plugged"] == "nat" and nic["link"] and nic["mac"] == nic["mac_used"]
    assert nic["sent"]["frames"] == 0 and nic["flows"] == [] and nic["forwards"] == []
    refused = ask(connection, do="levitate")
    assert not refused["ok"] and "no request of this name" in refused["error"]
    waiting = house.talk("mail")
    waiting.sendall(b'{"do":"wait","id":"w"}\n')
    assert ask(connection, do="quit")["ok"]
    answer = json.loads(waiting.makefile("rb").readline())
    assert answer["id"] == "w" and answer["end"] == "quit"


def test_control_socket_survives(house):
    """Nonsense, a huge line, clients that go away or do not read: the machine goes on."""
    house.create("mail", "oe")
    house.ok("start", "mail")
    for nonsense in (b"\n", b"{\n", b"\xff\xfe\n", b'{"do":{}}\n', b"x" * 200000, b'{"do":"attach","replay":-1}\n'):
        connection = house.talk("mail")
        try:
            connection.sendall(nonsense)
        except (BrokenPipeError, ConnectionResetError):
            pass
        connection.close()
    crowd = [house.talk("mail") for _ in range(100)]
    stalled = house.talk("mail")
    stalled.setblocking(False)
    try:
        while True:
            stalled.send(b'{"do":"exits"}\n' * 100)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    assert house.ps()["mail"]["state"] == "running"
    house.ok("stop", "--force", "mail")
    del crowd


def test_stopped_process(house):
    """`ps` does not wait for ever for a machine whose process stands still."""
    house.create("mail")
    house.ok("start", "mail")
    pid = house.ps()["mail"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        entries = json.loads(house.ok("ps", "--json"))
        assert [(entry["state"], entry["pid"]) for entry in entries] == [("no answer", pid)]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_sockets_are_not_for_others(house):
    """Where others may write no control socket is put."""
    house.create("mail")
    house.runtime.chmod(0o777)
    try:
        assert "others may write there" in house.refused("start", "mail")
    finally:
        house.runtime.chmod(0o700)


# ---- Debian ----


def serve_hello(listener):
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"hello from the host\n")
        connection.close()


@pytest.mark.slow
def test_debian(house, tmp_path):
    """Installed, booted to its login prompt, logged in, shut down by its power button, and again."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed")
    password = tmp_path / "password"
    password.write_text("a password\n")
    house.ok("create", "deb", "--os", "debian", "--password-file", password, "--disk", "4G", timeout=1200)
    folder = house.folder / "deb"
    subprocess.run(["qemu-img", "check", folder / "deb.vmdk"], check=True, capture_output=True)
    assert not (folder / ".install").exists()
    web = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve_hello, args=(web,), daemon=True).start()
    for again in (False, True):
        house.ok("start", "deb")
        console = house.console("deb")
        console.expect("deb login: ", timeout=120 * TIMEOUT_SCALE)
        console.send("root\r")
        console.expect("Password: ")
        console.send("a password\r")
        console.expect(r"root@deb:~# ")
        console.send("test -e /root/here; echo here=$?; touch /root/here; systemctl is-system-running --wait\r")
        console.expect(f"here={0 if again else 1}\r")
        console.expect("running\r", timeout=120 * TIMEOUT_SCALE)
        # Its network card was set up by DHCP; whoever wants a name resolved asks NAT's server.
        console.send("until ip -4 -o addr show | grep 10.0.2.15/24; do sleep 0.2; done; resolvectl dns\r")
        console.expect(r"10.0.2.15/24 .* dynamic", timeout=60 * TIMEOUT_SCALE)
        console.expect(r"Link 2 .*10\.0\.2\.3\b")
        port = web.getsockname()[1]
        console.send(f"exec 3<>/dev/tcp/10.0.2.2/{port}; cat <&3\r")
        console.expect("hello from the host\r")
        (nic,) = ask(house.talk("deb"), do="nics")["nics"]
        assert nic["sent"]["frames"] > 5 and nic["received"]["bytes"] > 500 and "bad-frame" not in nic["drops"]
        assert f"10.0.2.2:{port}" in [flow["outside"] for flow in nic["flows"]]
        house.ok("stop", "deb", timeout=120)
        console.expect("has ended")
        assert "ended (powered-off)" in house.ok("logs", "deb")
        subprocess.run(["qemu-img", "check", folder / "deb.vmdk"], check=True, capture_output=True)


# ---- snapshots and clones ----


def fill(path, pattern, offset=0):
    """Writes a pattern into a stopped machine's disk, by another program."""
    write = f"write -P {pattern} {offset} 64k"
    subprocess.run(["qemu-io", "-f", "vmdk", "-c", write, path], check=True, capture_output=True)


def holds(path, pattern, offset=0):
    result = subprocess.run(
        ["qemu-io", "-f", "vmdk", "-r", "-c", f"read -P {pattern} {offset} 64k", path],
        check=False,
        capture_output=True,
        text=True,
    )
    return result.returncode == 0 and "verification failed" not in result.stdout


def top(folder):
    """The file that the machine writes to now."""
    return folder / re.search(r'scsi0:0.fileName = "(.*)"', next(folder.glob("*.vmx")).read_text())[1]


@pytest.fixture
def disk_house(house):
    house.ok("create", "mail", "--disk", "16M", "--memory", "16M", "--kernel", house.kernel, "--append", "oe")
    fill(house.folder / "mail/mail.vmdk", 1)
    return house


def test_snapshots(disk_house):
    house, folder = disk_house, disk_house.folder / "mail"
    house.ok("snapshot", "create", "mail", "one", "--description", "the first")
    assert top(folder).name == "mail-000001.vmdk"
    fill(top(folder), 2)
    house.ok("snapshot", "create", "mail", "two")
    fill(top(folder), 3)
    listed = json.loads(house.ok("snapshot", "list", "--json", "mail"))
    assert [(s["name"], s["parent"], s["current"]) for s in listed] == [("one", 0, False), ("two", 1, True)]
    assert listed[0]["description"] == "the first" and listed[0]["disks"] == {"scsi0:0": "mail.vmdk"}
    assert re.search(r"1   \d{4}-.* one: the first\n +2 > .*   two\n", house.ok("snapshot", "list", "mail"))

    house.ok("snapshot", "revert", "mail", "one")
    assert holds(top(folder), 1)
    house.ok("snapshot", "revert", "mail", "2")
    assert holds(top(folder), 2)
    house.ok("snapshot", "delete", "mail", "one")
    assert holds(top(folder), 2)
    house.ok("snapshot", "delete", "mail", "two")
    house.ok("snapshot", "consolidate", "mail")
    assert holds(top(folder), 2)
    assert json.loads(house.ok("snapshot", "list", "--json", "mail")) == []
    assert [path.name for path in folder.glob("*.vmdk")] == [top(folder).name]


@pytest.mark.parametrize(
    "arguments, status, says",
    [
        (["create"], 2, "which machine?"),
        (["create", "mail"], 2, "which snapshot?"),
        (["list", "mail", "one"], 2, "one word too many"),
        (["take", "mail", "one"], 2, "there are create, list"),
        (["revert", "mail", "none"], 125, "none"),
        (["delete", "mail", "none"], 125, "none"),
        (["create", "nobody", "one"], 125, "no virtual machine"),
    ],
)
def test_snapshot_errors(disk_house, arguments, status, says):
    assert says in disk_house.refused("snapshot", *arguments, status=status)


def test_snapshot_while_it_runs(disk_house):
    house, folder = disk_house, disk_house.folder / "mail"
    house.ok("start", "mail")
    before = ask(house.talk("mail"), do="disks")["disks"][0]
    assert before["file"] == str(folder / "mail.vmdk") and before["chain"] == 1
    house.ok("snapshot", "create", "mail", "live")
    after = ask(house.talk("mail"), do="disks")["disks"][0]
    assert after["file"] == str(top(folder)) and after["chain"] == 2
    house.ok("snapshot", "create", "mail", "again")
    after = ask(house.talk("mail"), do="disks")["disks"][0]
    assert after["file"] == str(top(folder)) and after["chain"] == 3
    assert "it runs already" in house.refused("snapshot", "revert", "mail", "live")
    assert "snapshot 'live' taken" in house.ok("logs", "mail")
    house.ok("stop", "--force", "mail")
    fill(top(folder), 9)
    house.ok("snapshot", "revert", "mail", "live")
    assert holds(top(folder), 1)
    house.ok("start", "mail")


def test_snapshots_are_deleted_while_it_runs(disk_house):
    house, folder = disk_house, disk_house.folder / "mail"
    for name, pattern in (("one", 2), ("two", 3), ("three", 4)):
        house.ok("snapshot", "create", "mail", name)
        fill(top(folder), pattern)
    fill(top(folder), 5, 1 << 20)
    house.ok("start", "mail")
    connection = house.talk("mail")

    def chain():
        return ask(connection, do="disks")["disks"][0]["chain"]

    assert chain() == 4
    assert "none" in house.refused("snapshot", "delete", "mail", "none")
    house.ok("snapshot", "delete", "mail", "two")
    assert chain() == 3
    assert [s["name"] for s in json.loads(house.ok("snapshot", "list", "--json", "mail"))] == ["one", "three"]
    house.ok("snapshot", "consolidate", "mail")
    house.ok("snapshot", "delete", "--children", "mail", "one")
    assert chain() == 1
    assert "snapshot 'two' deleted" in house.ok("logs", "mail")
    assert [path.name for path in folder.glob("*.vmdk")] == ["mail.vmdk"] == [top(folder).name]
    house.ok("stop", "--force", "mail")
    assert holds(top(folder), 4) and holds(top(folder), 5, 1 << 20)
    subprocess.run(["qemu-img", "check", top(folder)], check=True, capture_output=True)


def test_a_machine_without_a_disk_has_no_snapshots(house):
    house.create("mail")
    assert "no disk" in house.refused("snapshot", "create", "mail", "one")
    house.ok("start", "mail")
    assert "no disk" in house.refused("snapshot", "create", "mail", "one")


def test_clone(disk_house):
    house, folder = disk_house, disk_house.folder / "mail"
    house.ok("clone", "mail", "copy")
    copy = house.folder / "copy"
    assert sorted(path.name for path in copy.iterdir()) == ["copy.vmdk", "copy.vmx"]
    fill(folder / "mail.vmdk", 7)
    assert holds(copy / "copy.vmdk", 1)
    uuids = {re.search("uuid.bios = (.*)", path.read_text())[1] for path in house.folder.glob("*/*.vmx")}
    assert len(uuids) == 2
    house.ok("rm", "--yes", "mail")
    house.ok("start", "copy")
    assert house.ps()["copy"]["state"] == "running"
    assert "it runs already" in house.refused("clone", "copy", "another")
    assert not (house.folder / "another").exists()


def test_linked_clone(disk_house):
    house, folder = disk_house, disk_house.folder / "mail"
    house.ok("snapshot", "create", "mail", "clean")
    fill(top(folder), 2)
    house.ok("clone", "--linked", "--snapshot", "clean", "mail", "old")
    house.ok("clone", "--linked", "mail", "new")
    assert holds(house.folder / "old/old.vmdk", 1) and holds(house.folder / "new/new.vmdk", 2)
    assert (house.folder / "new/new.vmdk").stat().st_blocks * 512 < 2 << 20
    fill(house.folder / "new/new.vmdk", 5)
    fill(top(folder), 6)
    assert holds(house.folder / "new/new.vmdk", 5) and holds(house.folder / "old/old.vmdk", 1)
    house.ok("start", "new")
    house.ok("start", "old")
    assert "the linked clone" in house.refused("rm", "--yes", "mail")
    house.ok("rm", "--force", "new")
    house.ok("rm", "--force", "old")
    house.ok("rm", "--yes", "mail")
    assert list(house.folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, status, says",
    [
        (["mail"], 2, "which machine"),
        (["mail", ".x"], 2, "not a name"),
        (["mail", "x", "--snapshot", "s"], 2, "--linked"),
        (["mail", "x", "--linked", "--snapshot", "s"], 125, "s"),
        (["mail", "mail"], 125, "there already"),
        (["nobody", "x"], 125, "no virtual machine"),
    ],
)
def test_clone_errors(disk_house, arguments, status, says):
    assert says in disk_house.refused("clone", *arguments, status=status)
    assert [path.name for path in disk_house.folder.iterdir()] == ["mail"]


def test_control_page_names_every_request():
    """docs/CONTROL.md and the program know the same requests."""
    page = (TOP / "docs/CONTROL.md").read_text()
    table = page[page.index("| `do` |") : page.index("`status`:\n")]
    code = (TOP / "src/control/commands.c").read_text()
    known = re.findall(r'^\t\{"([a-z-]+)", do_', code, re.MULTILINE)
    tables = (TOP / "src/control/inspect/inspect.c").read_text()
    known += re.findall(r'\{"([a-z-]+)", inspect_', tables)
    assert len(known) >= 18
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == sorted([*known, "do"])


def test_status_is_as_described(house):
    """Every member of `status` has its row in docs/CONTROL.md, and the other way round."""
    house.create("mail")
    house.ok("start", "mail")
    page = (TOP / "docs/CONTROL.md").read_text()
    rows = page[page.index("| member |") : page.index("An element of `disks`")]
    described = {name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall("`([a-z_]+)`", row)}
    assert set(house.ps()["mail"]) == described
