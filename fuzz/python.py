"""One Python target under atheris: ``python -m fuzz.python TARGET [libFuzzer's options and folders]``.

The environment variable FLASHPOL_FUZZ_EXTENSION names a build of an extension for the fuzzer, ``…/_tls.so``.
"""

import importlib.util
import os
import sys
from pathlib import Path

import atheris

if extension := os.environ.get("FLASHPOL_FUZZ_EXTENSION"):
    name = f"flashpol.{Path(extension).stem}"
    spec = importlib.util.spec_from_file_location(name, extension)
    assert spec
    assert spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

# Modules are instrumented as they are imported, so that libFuzzer sees which branches an input takes.
with atheris.instrument_imports(include=["flashpol"]):
    from fuzz.targets import TARGETS

    # Many modules are imported at first use, so every target is called once here.
    for warm, _ in TARGETS.values():
        warm(b"<cross-domain-policy/>")


def main() -> None:
    target, _ = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
