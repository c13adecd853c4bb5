"""The example reports under docs/examples: `python -m docs.make_examples`, from the root of the checkout.

They are what `ckptdoctor inspect` writes for the committed fixtures, replay included; so TensorFlow is needed. The tests
check that they are current. With `--screenshot` a picture of the first one is made, for the README; that needs Chromium.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "examples"

# name of the page → what is inspected
EXAMPLES = {
    "nan_feature": "fixtures/runs/nan_feature",
    "learning_rate_100": "fixtures/runs/rate_100_sgd",
    "rnn_on_large_inputs": "fixtures/runs/rnn_scaled",
    "exponential_activation": "fixtures/patterns/forward_overflow.keras",
    "healthy": "fixtures/runs/conv_healthy",
}


def make(name: str) -> str:
    """The page of one example, as text."""
    from ckptdoctor.api import InspectOptions, inspect
    from ckptdoctor.report import render

    os.chdir(ROOT)  # paths in the page are those of the checkout, whoever makes it
    return render(inspect(EXAMPLES[name], InspectOptions(device="cpu")), "html")


def screenshot(page: Path, target: Path) -> None:
    """A picture of the top of a page, in its light scheme."""
    from tests.report.chromium import browser

    with browser() as running:
        tab = running.new_page(viewport={"width": 1180, "height": 860}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.screenshot(path=str(target))


def main() -> int:
    """Write them all, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which; all by default")
    parser.add_argument("--screenshot", action="store_true")
    options = parser.parse_args()
    from ckptdoctor.report.writing import write_atomically

    FOLDER.mkdir(exist_ok=True)
    for name in options.names or EXAMPLES:
        path = write_atomically(FOLDER / f"{name}.html", make(name))
        print(path.relative_to(ROOT), f"{path.stat().st_size / 1000:.0f} kB")
    if options.screenshot:
        screenshot(FOLDER / f"{next(iter(EXAMPLES))}.html", FOLDER / "report.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
