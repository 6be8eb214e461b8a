"""What Ctrl-C and SIGTERM do where no training loop saves before it ends.

Imports nothing that takes time, so that it holds from the first moment on.
"""

import os
import signal


def stop_in_one_line(
    advice: str = "; what is whole stays: start the same line again to go on",
) -> None:
    """Has Ctrl-C and SIGTERM end the program at once, as a kill does.

    After one every stage goes on. An exception would be lost where it happens to be
    raised in a callback, as of the garbage collector.

    Args:
      advice: What is printed after the name of the signal.
    """

    def stop(number: int, _: object) -> None:
        name = signal.Signals(number).name
        os.write(2, f"stopped by {name}{advice}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and & in a script set
            signal.signal(number, stop)
