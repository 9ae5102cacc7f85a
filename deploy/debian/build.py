"""Builds a Debian package of flashpol for the release of Debian, and its Python, that this runs on.

    python3 deploy/debian/build.py --python .venv/bin/python --out dist

flashpol and the libraries it needs go to /usr/lib/flashpol, because the releases' own gevent and prometheus-client are
older than what it needs; the units, the configuration, the manual pages and the documentation go where Debian expects
them. Needs dpkg-deb; `--python` names an interpreter with pip that has the same minor version as /usr/bin/python3.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LAUNCHER = """#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/flashpol")
from flashpol.cli.main import main

sys.exit(main())
"""


def version() -> str:
    [found] = re.findall(r'^VERSION = "([^"]+)"', (ROOT / "flashpol" / "version.py").read_text(), re.M)
    return str(found)


def copy(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def write(target: Path, text: str, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def stage(tree: Path, python: str, source: str, pip_options: list[str]) -> None:
    """Lay out the files of the package below `tree`. source: a wheel, or a folder that pip builds one from."""
    library = tree / "usr/lib/flashpol"
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", *pip_options]
    subprocess.run([*command, "--target", str(library), source], check=True)
    shutil.rmtree(library / "bin", ignore_errors=True)
    shutil.rmtree(library / "share", ignore_errors=True)  # the manual pages, which go where man looks
    if not list((library / "flashpol").glob("_tls.*.so")):
        sys.exit("build.py: the build has no TLS: apt-get install libssl-dev")
    write(tree / "usr/bin/flashpol", LAUNCHER, 0o755)
    for path in sorted((ROOT / "share").rglob("*")):
        if path.is_file():
            copy(path, tree / "usr/share" / path.relative_to(ROOT / "share"))
    units = ROOT / "deploy" / "systemd"
    for name in ("flashpol.service", "flashpol.socket", "flashpol-admin.socket"):
        text = (units / name).read_text().replace("/opt/flashpol/bin/flashpol", "/usr/bin/flashpol")
        write(tree / "usr/lib/systemd/system" / name, text)
    copy(units / "flashpol.toml", tree / "etc/flashpol/flashpol.toml")
    copy(ROOT / "examples" / "policy.xml", tree / "etc/flashpol/policy.xml")
    copy(ROOT / "deploy" / "logrotate" / "flashpol", tree / "etc/logrotate.d/flashpol")
    documents = tree / "usr/share/doc/flashpol"
    for path in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*"), *(ROOT / "deploy").rglob("*")]:
        if path.is_file() and HERE not in path.parents and "__pycache__" not in path.parts:
            copy(path, documents / path.relative_to(ROOT))
    copy(ROOT / "LICENSE", documents / "copyright")
    copy(ROOT / "README.md", documents / "README.md")
    copy(ROOT / "CHANGELOG.md", documents / "CHANGELOG.md")


def control(tree: Path, name: str) -> None:
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    major, minor = sys.version_info[:2]
    values = {
        "VERSION": name,
        "ARCHITECTURE": architecture,
        "PYTHON": f"{major}.{minor}",
        "NEXT_PYTHON": f"{major}.{minor + 1}",
        "KILOBYTES": str(sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024),
    }
    text = (HERE / "control").read_text()
    write(tree / "DEBIAN/control", re.sub(r"@(\w+)@", lambda found: values[found[1]], text))
    copy(HERE / "conffiles", tree / "DEBIAN/conffiles")
    for script in ("postinst", "prerm", "postrm"):
        copy(HERE / script, tree / "DEBIAN" / script, 0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter with pip, of the release's version")
    parser.add_argument("--source", default=str(ROOT), help="wheel, or folder with setup.py (default: this tree)")
    parser.add_argument("--revision", default="1", help="Debian revision, after the version")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the package")
    options, pip_options = parser.parse_known_args()
    os.umask(0o022)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "flashpol"
        stage(tree, options.python, options.source, pip_options)
        control(tree, f"{version()}-{options.revision}")
        command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(options.out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"build.py: dpkg-deb: {done.stderr.strip()}")
    print(done.stdout.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
