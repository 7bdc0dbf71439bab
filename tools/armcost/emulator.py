"""Builds what is measured and runs it in qemu-aarch64 with the counting plugin."""

import os
import pathlib
import re
import shutil
import subprocess

import counts

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = "aarch64-unknown-linux-musl"
# The core that qemu plays, and the cores whose cycles are modelled from that run: one binary
# chooses the same kernels on both.
RUNS = {"cortex-a72": ["A53", "A72"], "cortex-a76": ["A76", "A78"]}
KERNELS = {"cortex-a72": "neon", "cortex-a76": "dotprod"}
ALLOCATIONS = r"__rustc(?:\[\w+\])?::__rust_(?:alloc|alloc_zeroed|realloc)"
LLAMA_PACKAGE = "@node-llama-cpp/linux-arm64@3.22.1"
LLAMA_BACKENDS = {"cortex-a72": "libggml-cpu-armv8.0_1.so", "cortex-a76": "libggml-cpu-armv8.2_2.so"}
# Debian: command, package that has it.
PACKAGES = {
    "qemu-aarch64": "qemu-user",
    "llvm-mca-22": "llvm-22",
    "llvm-mc-22": "llvm-22",
    "llvm-nm-22": "llvm-22",
    "cc": "gcc libc6-dev",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "setarch": "util-linux",
}
LLAMA_PACKAGES = {"npm": "npm"}
LLAMA_LIBRARY = "/usr/aarch64-linux-gnu/lib/libstdc++.so.6"


class Failure(Exception):
    """Something the user can mend; the message says how."""


def install(with_llama):
    """Installs what is missing with apt, or says what is missing."""
    wanted = dict(PACKAGES, **(LLAMA_PACKAGES if with_llama else {}))
    packages = {wanted[command] for command in wanted if not shutil.which(command)}
    if with_llama and not os.path.exists(LLAMA_LIBRARY):
        packages.add("libstdc++6-arm64-cross")
    names = sorted({name for package in packages for name in package.split()})
    if names:
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        try:
            call([*sudo, "apt-get", "update", "-qq"])
            call([*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *names])
        except (Failure, FileNotFoundError) as error:
            raise Failure(
                f"missing, and not to be had from apt: {' '.join(names)} ({error}); "
                "llvm-22 comes from Debian 12 security updates, Debian 13 backports or apt.llvm.org"
            ) from None
    check_qemu()


def check_qemu():
    text = output(["qemu-aarch64", "--version"])
    version = tuple(int(part) for part in re.search(r"version (\d+)\.(\d+)", text).groups())
    if not (5, 0) <= version <= (8, 2):
        raise Failure(
            f"qemu-aarch64 is version {version[0]}.{version[1]}; counter.c speaks the plugin interface of 5.0 to 8.2"
        )
    return text.split("\n")[0]


def call(command, **options):
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False, **options)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} ended with {done.returncode}")


def output(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: {done.stderr.strip()[-500:]}")
    return done.stdout


class Emulator:
    """Runs aarch64 programs in a working folder; every run gives its phases."""

    def __init__(self, work):
        self.work = pathlib.Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.plugin = self.work / "counter.so"
        call(["cc", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-o", self.plugin, HERE / "counter.c"])

    def build(self, package):
        """Builds a release binary of the workspace for the boards; its path."""
        command = ["cargo", "build", "--release", "--locked", "--target", TARGET, "-p", package]
        call(command, cwd=ROOT)
        folder = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
        return pathlib.Path(folder) / TARGET / "release"

    def run(self, cpu, program, *args, library_root=None):
        """(phases, symbols, standard output). Environment, addresses and seeds are fixed."""
        dump = self.work / "counts"
        command = [
            "setarch", "-R", "qemu-aarch64", "-cpu", cpu, "-seed", "1",
            "-plugin", f"{self.plugin},out={dump}",
        ]  # fmt: skip
        if library_root:
            command += ["-L", library_root]
        command += [str(program), *map(str, args)]
        text = output(command, cwd=self.work, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
        phases, maps = counts.read(dump)
        return phases, counts.Symbols(maps, "llvm-nm-22"), text

    def pack(self, program, vision, decoder):
        """A pack of random weights of the 256M shape and this depth."""
        path = self.work / f"{vision}-{decoder}.ocelli"
        # Another program may write another format.
        if not path.exists() or path.stat().st_mtime < program.stat().st_mtime:
            partial = path.with_suffix(".partial")
            output(
                ["qemu-aarch64", "-cpu", "cortex-a76", str(program), "bench", "--shape", "smolvlm-256m",
                 "--depth", f"{vision},{decoder}", "--write", str(partial), "--force"]
            )  # fmt: skip
            partial.rename(path)
        return path

    def llama(self):
        """Folder of llama.cpp's prebuilt libraries, and our driver for them."""
        folder = self.work / "llama"
        libraries = folder / "package" / "bins" / "linux-arm64"
        if not libraries.exists():
            folder.mkdir(exist_ok=True)
            name = output(["npm", "pack", "--silent", LLAMA_PACKAGE], cwd=folder).split()[-1]
            call(["tar", "xzf", name], cwd=folder)
        driver = folder / "llama"
        call(["aarch64-linux-gnu-gcc", "-O2", "-o", driver, HERE / "llama.c", "-ldl"])
        return libraries, driver
