"""One Python target under atheris: ``python -m fuzz.python TARGET [libFuzzer's options and folders]``."""

import sys

import atheris

# Instrumented as they are imported: the branches that were taken lead libFuzzer on.
with atheris.instrument_imports(include=["flashpol"]):
    from fuzz.targets import TARGETS

    # Much is loaded when it is first needed.
    for warm, _ in TARGETS.values():
        warm(b"<cross-domain-policy/>")


def main() -> None:
    target, _ = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
