"""malmoi-quant: export, check and release quantized checkpoints."""

import sys


def main() -> None:
    """Console script."""
    print("error: malmoi-quant: no command is there yet; see CHANGELOG.md", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
