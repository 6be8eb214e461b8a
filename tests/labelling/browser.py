"""A labeler's day in a real browser: what is clicked there comes back from the desk.

    python tests/labelling/browser.py [--screenshots=FOLDER]

Starts Label Studio, logs in with headless Chromium as a labeler, writes a
demonstration, rates an answer, drags five cards into ranks with a tie, judges four
answers on the page of the final evaluation, skips a task, and compares what
`StudioDesk.finished` gives with what was done. It needs the extra `labelling-test`,
Chromium with its chromedriver, and LABEL_STUDIO as the tests do; without them it says
so and ends with 0.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from instructgpt.labelling import server
from instructgpt.labelling.environment import VARIABLE
from instructgpt.labelling.interface import FLAGS, Page, Rating, Task, Work
from instructgpt.labelling.seats import Seat
from instructgpt.labelling.studio import StudioDesk

SECONDS = 40.0  # that a page may take
WIDTH, HEIGHT = 1280, 900
COLORS = 32  # of a screenshot

PROMPT = "Why do the leaves of many trees turn red in autumn?\nAnswer in two sentences."
ANSWERS = (
    "As days grow short, the tree takes its green chlorophyll back. Red anthocyanins, "
    "made from the sugar that stays in the leaf, then show.",
    "Leaves turn red because of the cold.",
    "It depends on the tree.\n\n1. Maple: red\n2. Birch: yellow\n3. Pine: <green>",
    "The chlorophyll breaks down and other pigments show.",
    "Because autumn is the season in which leaves turn red.",
)
HISTORY = ("Is autumn the same as fall?", "Yes, fall is the American word.")
TASKS: dict[Page, list[Task]] = {
    "demonstration": [
        Task("demonstration-1", "demonstration", HISTORY, PROMPT),
        Task("demonstration-2", "demonstration", (), "asdf"),
    ],
    "rating": [Task("rating-1", "rating", (), PROMPT, ANSWERS[2:3])],
    "ranking": [Task("ranking-1", "ranking", HISTORY, PROMPT, ANSWERS)],
    "final": [Task("final-1", "final", (), PROMPT, ANSWERS[:4])],
}
YES = {"hallucination", "satisfies_constraint", "expresses_opinion"}
RATING = Rating(5, {name: name in YES for name in FLAGS})
WORK: dict[str, Work] = {
    "demonstration-1": Work("", response="The green goes first.\n  Then red shows."),
    "demonstration-2": Work("", skipped=True),
    "rating-1": Work("", ratings=(RATING,), note="Long-winded & <wrong>."),
    "ranking-1": Work("", ranks=(1, 3, 4, 2, 3)),
    "final-1": Work(
        "",
        ratings=tuple(RATING._replace(likert=likert) for likert in (7, 2, 1, 2)),
        ranks=(1, 2, 3, 2),
        note="Two are alike.",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of pages")
    args = parser.parse_args()
    missing = what_is_missing()
    if missing:
        print(f"browser.py: skipped, as there is no {missing}")
        return
    with tempfile.TemporaryDirectory() as folder:
        labelling = Path(folder) / "labelling"
        try:
            (seat,) = server.start(labelling, {"ann": "training"})
            desk = StudioDesk(seat, title="autumn")
            urls = desk.setup()
            for page, tasks in TASKS.items():
                desk.put(page, tasks)
            with chromium() as driver:
                Labeler(driver, args.screenshots).work(seat, urls)
            faults = list(differences(desk))
        finally:
            server.stop(labelling)
    for fault in faults:
        print(f"browser.py: {fault}")
    print(f"browser.py: {len(WORK)} tasks done in Chromium, {len(faults)} differ")
    sys.exit(bool(faults))


def what_is_missing() -> str | None:
    if not os.environ.get(VARIABLE):
        return f"program label-studio named by {VARIABLE}"
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            return f"{program} on the path"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium (pip install --editable '.[labelling-test]')"
    return None


def differences(desk: StudioDesk) -> Iterator[str]:
    """What the desk gives that was not done in the browser, and the reverse."""
    for page, tasks in TASKS.items():
        found = {
            getattr(one, "key", one): one
            for one in desk.finished(page, {task.key: task for task in tasks})
        }
        for task in tasks:
            work = found.pop(task.key, None)
            wanted = WORK[task.key]._replace(key=task.key)
            same = isinstance(work, Work) and work._replace(seconds=0.0, when="")
            if same != wanted:
                yield f"{task.key}: {work}, not {wanted}"
            elif not (0 < work.seconds < 10 * SECONDS and work.when.startswith("20")):
                yield f"{task.key}: took {work.seconds} s, at {work.when!r}"
        for one in found.values():
            yield f"{page}: {one}"


@contextmanager
def chromium() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"),
        f"window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


class Labeler:
    """A labeler at a browser."""

    def __init__(self, driver: Any, screenshots: Path | None):
        self.driver = driver
        self.screenshots = screenshots

    def work(self, seat: Seat, urls: Mapping[Page, str]) -> None:
        self.driver.get(f"{seat.address}/user/login/")
        self.find("input[name=email]").send_keys(seat.login)
        self.find("input[name=password]").send_keys(seat.password)
        self.find("button[type=submit]").click()
        self.until(lambda: "/user/login" not in self.driver.current_url)

        self.open(urls["demonstration"], "demonstration-1")
        self.write("response", WORK["demonstration-1"].response)
        self.picture("demonstration")
        self.press("Submit")
        self.shows("demonstration-2")
        self.press("Skip")
        self.gone("demonstration-2")

        self.open(urls["rating"], "rating-1")
        self.rate(0, RATING)
        self.picture("rating")
        self.write("note", WORK["rating-1"].note)
        self.press("Submit")
        self.gone("rating-1")

        self.open(urls["ranking"], "ranking-1")
        self.rank(WORK["ranking-1"].ranks, picture="ranking")
        self.press("Submit")
        self.gone("ranking-1")

        self.open(urls["final"], "final-1")
        for number, rating in enumerate(WORK["final-1"].ratings):
            self.rate(number, rating)
            if number == 0:
                self.picture("final")
        self.rank(WORK["final-1"].ranks)
        self.write("note", WORK["final-1"].note)
        self.press("Submit")
        self.gone("final-1")

    def find(self, css: str, number: int = 0) -> Any:
        """The element, once it is there."""

        def found() -> Any:
            return self.driver.find_elements("css selector", css)[number:]

        return self.until(found)[0]

    def until(self, holds: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + SECONDS
        while True:
            try:
                given = holds()
            except WebDriverException:  # the page is being drawn anew
                given = None
            if given:
                return given
            if time.monotonic() > end:
                self.picture("failed", always=True)
                raise AssertionError(f"{self.driver.current_url}: it does not come")
            time.sleep(0.1)

    def shows(self, key: str) -> None:
        self.until(lambda: key in self.find(".ig-key").text)

    def gone(self, key: str) -> None:
        self.until(
            lambda: all(
                key not in element.text
                for element in self.driver.find_elements("css selector", ".ig-key")
            )
        )

    def open(self, url: str, key: str) -> None:
        """Opens a page's first task, and closes the instruction."""
        self.driver.get(url)
        modal = "button[aria-label='Close modal']"
        if key == "demonstration-1":
            self.find(".ig-instruction")
            time.sleep(1.0)  # it moves in
            self.picture("instruction")
        self.find(modal).click()
        self.until(lambda: not self.driver.find_elements("css selector", modal))
        self.shows(key)

    def press(self, label: str) -> None:
        def pressed() -> bool:
            for button in self.driver.find_elements("css selector", "button"):
                if button.text == label and button.is_enabled():
                    button.click()
                    return True
            return False

        self.until(pressed)

    def write(self, field: str, text: str) -> None:
        area = self.find(f"textarea[name={field}]")
        self.into_view(area)
        area.send_keys(text)

    def rate(self, answer: int, rating: Rating) -> None:
        """Chooses the quality and answers every question about an answer."""
        wanted = [str(rating.likert)]
        wanted += ["Yes" if rating.flags[name] else "No" for name in FLAGS]
        groups = self.driver.find_elements("css selector", ".lsf-choices")
        start = answer * len(wanted)
        for group, value in zip(groups[start:], wanted, strict=False):
            radio = group.find_element("css selector", f"input[name='{value}']")
            self.into_view(radio)
            radio.click()

    def rank(self, ranks: tuple[int, ...], picture: str = "") -> None:
        """Drags the card of each answer into its rank."""
        for answer, rank in enumerate(ranks):
            card = f"[data-ranker-id='{chr(ord('a') + answer)}']"
            self.drag(card, rank)
            if picture and answer == len(ranks) - 2:
                self.picture(picture)

    def drag(self, card: str, rank: int) -> None:
        from selenium.webdriver import ActionChains

        columns = ".ig-ranks .htx-ranker-column"
        target = f"{columns}:nth-child({rank + 1})"
        # A collapsed card is short, so that it and all ranks are in view.
        if "collapsed" not in self.find(card).get_attribute("class"):
            button = self.find(f"{card} button")
            self.into_view(button)
            button.click()
        self.into_view(self.find(columns), "start")
        chain = ActionChains(self.driver, duration=100)
        chain.click_and_hold(self.find(card)).move_by_offset(12, 0).pause(0.2)
        area = self.find(f"{target} [data-rbd-droppable-id]")
        chain.move_to_element(area).move_by_offset(0, 2).pause(0.4).release()
        chain.perform()
        self.until(
            lambda: self.driver.find_elements("css selector", f"{target} {card}")
        )
        time.sleep(0.5)  # the card settles

    def into_view(self, element: Any, where: str = "center") -> None:
        script = "arguments[0].scrollIntoView({block: arguments[1]})"
        self.driver.execute_script(script, element, where)

    def picture(self, name: str, *, always: bool = False) -> None:
        """Keeps a small picture of the page."""
        if self.screenshots is None and not always:
            return
        folder = self.screenshots or Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.driver.execute_script("document.activeElement.blur()")
        self.driver.save_screenshot(str(path))
        shrink(path)


def shrink(path: Path) -> None:
    """Fewer colors make a picture of a page small; nobody sees it."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(COLORS).save(path, optimize=True)


if __name__ == "__main__":
    main()
