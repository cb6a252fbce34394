"""Takes the README's pictures of a report and of the dashboard, light and dark, from runs that it trains (about a minute).

    python scripts/screenshots.py            # into docs/images
    python scripts/screenshots.py --out DIR --narrow

Needs Chromium or Chrome, and the extras `dashboard` and `dev`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.browser import browsing, served
from vmaptune.dashboard.app import make_app
from vmaptune.report.writing import write_report

RUNS = {
    "digits": {},
    "digits-tpe-asha": {"population.size": 16, "search.method": '"tpe"', "search.stop.name": '"asha"'},
    "breast-cancer": {"task.name": '"breast_cancer"', "population.size": 16, "population.generations": 8},
    "sgd-regression": {"task.name": '"linear_regression"', "population.size": 128, "population.segment_steps": 10},
}
LONG = {
    "population.generations": 40,
    "population.size": 16,
    "population.segment_steps": 2000,
    "plan.generations_per_dispatch": 1,
}
MOST = 250_000  # bytes a picture


def train(folder: Path, settings: dict, **how) -> subprocess.Popen:
    command = [sys.executable, "-m", "vmaptune", "run", "--quiet", "--out", str(folder)]
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    return subprocess.Popen([*command, *sets], stdout=subprocess.DEVNULL, **how)


def begun(folder: Path, generations: int) -> None:
    """Waits until a run has finished some generations."""
    from vmaptune.errors import StoreError
    from vmaptune.store.folder import RunFolder
    from vmaptune.store.reading import read_run

    while True:
        try:
            if read_run(RunFolder(folder))["generation"] + 1 >= generations:
                return
        except StoreError:
            pass
        time.sleep(0.2)


def shrink(path: Path) -> None:
    """Packs a picture; with fewer colours, if it would be too large."""
    from PIL import Image

    with Image.open(path) as image:
        whole = image.convert("RGB")
    whole.save(path, optimize=True)
    if path.stat().st_size > MOST:
        whole.quantize(256).save(path, optimize=True)
    if path.stat().st_size > MOST:
        raise SystemExit(f"{path}: {path.stat().st_size:,} bytes; at most {MOST:,}")


def shoot(browser, address: str, ready: str, file: Path, size: tuple[int, int], theme: str) -> None:
    """One picture of a page."""
    page = browser.new_context(color_scheme=theme, viewport={"width": size[0], "height": size[1]}).new_page()
    page.goto(address)
    page.wait_for_selector(ready, timeout=120_000)
    page.wait_for_timeout(800)
    page.screenshot(path=file)
    page.context.close()
    shrink(file)
    print(file, f"{file.stat().st_size:,} bytes")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "images")
    arguments.add_argument("--runs", type=Path, help="take them of the runs in this folder, `digits` among them; train none")
    arguments.add_argument("--narrow", action="store_true", help="also pictures of 400 pixels, to look at")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sizes = {"": (1200, 1180)} | ({"-narrow": (400, 800)} if given.narrow else {})
    with tempfile.TemporaryDirectory() as place:
        root = given.runs or Path(place) / "runs"
        live = None if given.runs else train_all(root)
        try:
            report = write_report([root / "digits"], out=Path(place) / "report.html").files[0].as_uri()
            with served(make_app(root)) as port, browsing() as browser:
                address = f"http://127.0.0.1:{port}"
                for theme in ("light", "dark"):
                    for suffix, size in sizes.items():
                        file = f"-{theme}{suffix}.png"
                        shoot(browser, report, "html[data-ready=yes]", given.out / f"report{file}", size, theme)
                        shoot(browser, address, "#runs tbody tr", given.out / f"dashboard{file}", (size[0], 480), theme)
                        if given.narrow:
                            page = f"{address}/run?run=digits"
                            shoot(browser, page, "section[data-state=drawn]", given.out / f"run{file}", size, theme)
        finally:
            if live:
                live.send_signal(signal.SIGTERM)
                live.wait()


def train_all(root: Path) -> subprocess.Popen:
    """Trains the runs, and begins one that is still going when the pictures are taken."""
    for name, settings in RUNS.items():
        if train(root / name, settings).wait():
            raise SystemExit(f"{name} failed")
    live = train(root / "digits-long", LONG, stderr=subprocess.DEVNULL)
    begun(root / "digits-long", 8)
    return live


if __name__ == "__main__":
    main()
