"""One Python target under atheris: ``python -m fuzz.python TARGET [libFuzzer's options and folders]``.

The environment variable FLASHPOL_FUZZ_TLS names a build of flashpol._tls for the fuzzer.
"""

import importlib.util
import os
import sys

import atheris

if extension := os.environ.get("FLASHPOL_FUZZ_TLS"):
    spec = importlib.util.spec_from_file_location("flashpol._tls", extension)
    assert spec
    assert spec.loader
    sys.modules["flashpol._tls"] = module = importlib.util.module_from_spec(spec)
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
