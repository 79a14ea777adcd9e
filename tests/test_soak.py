# SPDX-License-Identifier: Apache-2.0
"""A stock Debian under mixed load for a long time: compilers, Python, a JVM and stress-ng at once on two vCPUs.

Slow: it installs a Debian and, in it, the programs from Debian's mirror. HANOK_SOAK_S says for how long it then
runs (300 s); every round must compute what the first did, and the guest's kernel must have nothing to complain of
(tests/soak.sh). HANOK_SOAK_CPUS is how many virtual CPUs it has (2): with one, its programs take turns at the
window. HANOK_SOAK_LOG names a file that gets what the guest's console says.
"""

import os
import re
import shutil
import socket
import threading

import pytest
from conftest import TIMEOUT_SCALE, TOP
from test_vm import house  # noqa: F401

SECONDS = int(os.environ.get("HANOK_SOAK_S", "300"))
CPUS = os.environ.get("HANOK_SOAK_CPUS", "2")
PACKAGES = "gcc libc6-dev make python3 openjdk-17-jre-headless stress-ng"
ROUND_SECONDS = 600  # on a host that is busy with other things


def serve(listener, text):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(text)


def install(console):
    # The JRE's setup wants a folder that this Debian leaves out.
    console.send("mkdir -p /usr/share/man/man1; export DEBIAN_FRONTEND=noninteractive\r")
    console.expect("root@soak:~# ")
    console.send(f"apt-get -q update && apt-get -qy --no-install-recommends install {PACKAGES}; echo installed=$?\r")
    console.expect(r"installed=(\d+)\r", timeout=1800 * TIMEOUT_SCALE)
    assert console.match[1] == "0", console.before[-2000:]


@pytest.mark.slow
def test_debian_under_load(house, tmp_path):  # noqa: F811
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed")
    password = tmp_path / "password"
    password.write_text("a password\n")
    house.ok("create", "soak", "--os", "debian", "--password-file", password, "--disk", "8G", "--memory", "2G",
             "--cpus", CPUS, timeout=1200)  # fmt: skip
    house.ok("start", "soak")
    console = house.console("soak")
    if os.environ.get("HANOK_SOAK_LOG"):
        console.logfile_read = open(os.environ["HANOK_SOAK_LOG"], "w", encoding="utf-8")  # noqa: SIM115
    console.expect("soak login: ", timeout=120 * TIMEOUT_SCALE)
    console.send("root\r")
    console.expect("Password: ")
    console.send("a password\r")
    console.expect("root@soak:~# ")
    console.send("systemctl is-system-running --wait\r")
    console.expect("running\r", timeout=120 * TIMEOUT_SCALE)
    install(console)

    script = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(script, (TOP / "tests/soak.sh").read_bytes()), daemon=True).start()
    port = script.getsockname()[1]
    console.send(f"stty cols 1000; exec 3<>/dev/tcp/10.0.2.2/{port}; cat <&3 >soak.sh; bash soak.sh {SECONDS}\r")
    while True:
        console.expect(r"soak: (round|ended|WRONG):? ?([^\r]*)\r", timeout=ROUND_SECONDS * TIMEOUT_SCALE)
        assert console.match[1] != "WRONG", console.match[2] + console.before[-2000:]
        if console.match[1] == "ended":
            break
    assert int(re.match(r"(\d+) rounds", console.match[2])[1]) >= 1
    house.ok("stop", "soak", timeout=120)
    console.expect("has ended")
    assert "ended (powered-off)" in house.ok("logs", "soak")
