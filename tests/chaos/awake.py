"""A clock that stands still while this process is stopped, as its services are then: a run may be put aside while something else is measured."""

import threading
import time

TICK_S = 0.1
STOPPED_S = 1  # so long without a tick


class Clock:
    def __init__(self):
        self.lock = threading.Lock()
        self.last = time.monotonic()
        self.stopped = 0.0
        threading.Thread(target=self.tick, daemon=True).start()

    def tick(self):
        while True:
            time.sleep(TICK_S)
            self.seconds()

    def seconds(self):
        with self.lock:
            now = time.monotonic()
            if now - self.last > STOPPED_S:
                self.stopped += now - self.last
            self.last = now
            return now - self.stopped


CLOCK = Clock()
awake_s = CLOCK.seconds
