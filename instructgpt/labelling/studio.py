"""A labeler's desk on a server of Label Studio.

The signatures are settled; the bodies follow.
"""

from collections.abc import Iterator, Mapping, Sequence

from instructgpt.labelling.interface import Page, Refused, Task, Work
from instructgpt.labelling.seats import Seat


class StudioDesk:
    """A labeler's account on a server of Label Studio, as a desk.

    Args:
      seat: The labeler's account.
      title: Names the workdir's projects on the server, such as the workdir's name.
    """

    def __init__(self, seat: Seat, *, title: str):
        self.labeler = seat.labeler

    def setup(self) -> dict[Page, str]:
        """Makes the four projects unless they are there; returns their pages' URLs."""
        raise NotImplementedError

    def put(self, page: Page, tasks: Sequence[Task]) -> None:
        """Hands tasks to the labeler; those that lie there already are left alone."""
        raise NotImplementedError

    def finished(
        self, page: Page, tasks: Mapping[str, Task]
    ) -> Iterator[Work | Refused]:
        """Yields the finished and skipped work, and what cannot be taken."""
        raise NotImplementedError

    def submit(self, page: Page, key: str, work: Work) -> None:
        """Answers a task through the API that the pages use.

        Raises:
          UserError: the task does not lie at this desk.
        """
        raise NotImplementedError
