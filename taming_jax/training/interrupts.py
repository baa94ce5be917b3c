"""SIGTERM and Ctrl-C as a wish that the loop fulfils between two steps."""

import signal


class Interrupts:
    """While entered, `signal` is 0, or the number of the signal that asked to stop.

    A second Ctrl-C stops at once, without saving.
    """

    def __init__(self):
        self.signal = 0
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        print(f"{signal.Signals(number).name}: saving after this step", flush=True)
