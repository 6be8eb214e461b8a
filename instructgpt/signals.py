"""Handling of Ctrl-C and SIGTERM outside of the training loop.

This module imports nothing slow, so that it can take effect at once.
"""

import os
import signal


def stop_in_one_line(
    advice: str = "; what is whole stays: start the same line again to go on",
) -> None:
    """Makes Ctrl-C and SIGTERM end the program at once, as a kill does.

    Every stage can resume after a kill. An exception would not be safe: it is lost if
    it is raised within a callback, such as the garbage collector's.

    Args:
      advice: Text printed after the name of the signal.
    """

    def stop(number: int, _: object) -> None:
        name = signal.Signals(number).name
        os.write(2, f"stopped by {name}{advice}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and "&" ignore a signal
            signal.signal(number, stop)
